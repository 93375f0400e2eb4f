"""What pictures are known by: the labels of a folder, those of the segmentation loss included."""

from __future__ import annotations

import shutil

import pytest
from study_helpers import ROOT

from ion_d2.errors import IONError
from ion_lab.study.run_settings import run_settings, same_settings
from ion_lab.study.study_data import prepare_pictures
from ion_lab.study.table import Data

CONFIG = ROOT / "configs" / "ion_tiny.yaml"
DATA = Data("mine", folder="mine")
ON = ("MODEL.SEG_REGULARIZER_ON", "True")


@pytest.fixture
def folder(scenes, tmp_path):
    """A VOC folder whose label maps a test may change."""
    copy = tmp_path / "mine"
    shutil.copytree(scenes, copy)
    return copy


def settings(folder, *overrides):
    pictures = prepare_pictures(DATA, folder.parent, {"mine": folder})
    return run_settings(CONFIG, overrides, pictures, None)


def paint(path):
    """Another label map in a file's place."""
    other = next(each for each in sorted(path.parent.iterdir()) if each != path)
    shutil.copy(other, path)


@pytest.mark.parametrize(
    "split", ["trainval", "test"]
)  # TEST.BEST_METRIC may be of the test's maps
def test_label_maps_tell_runs_with_the_segmentation_loss_apart(folder, split):
    maps = folder / "SegmentationClass"
    plain, with_loss = settings(folder), settings(folder, *ON)
    shutil.copytree(folder, folder.parent / "elsewhere")
    moved = folder.parent / "elsewhere"
    assert same_settings(with_loss, settings(moved, *ON))
    for change in (paint, lambda path: path.unlink(), lambda path: shutil.rmtree(path.parent)):
        before = settings(folder, *ON)
        change(next(path for path in sorted(maps.glob("*.png")) if path.name.startswith(split)))
        assert not same_settings(before, settings(folder, *ON)), change
        # Without the loss, nobody reads them.
        assert same_settings(plain, settings(folder))
    assert same_settings(with_loss, settings(moved, *ON))


def test_maps_of_further_folders_count_wherever_they_lie(folder):
    own, further = folder / "SegmentationClass", folder / "further"
    without = settings(folder, *ON)
    own.rename(further)
    shutil.copytree(further, folder.parent / "away")
    beside = settings(folder, *ON, "DATASETS.SEM_SEG_DIRS", "('further',)")
    away = settings(folder, *ON, "DATASETS.SEM_SEG_DIRS", f"({str(folder.parent / 'away')!r},)")
    assert same_settings(without, beside) and same_settings(beside, away)
    assert not same_settings(beside, settings(folder, *ON))
    with pytest.raises(IONError, match="SEM_SEG_DIRS names /nowhere"):
        settings(folder, *ON, "DATASETS.SEM_SEG_DIRS", "('/nowhere',)")


def test_runs_without_the_loss_and_scenes_are_known_as_before(folder, tmp_path):
    assert list(settings(folder)["pictures"]) == ["labels"]
    scenes = Data("drawn", {"train": 1, "test": 1, "families": ["ordinary"], "size": 128})
    pictures = prepare_pictures(scenes, tmp_path / "scenes", {})
    assert list(run_settings(CONFIG, ON, pictures, None)["pictures"]) == ["scenes"]


def test_a_label_map_that_cannot_be_read_is_named(folder):
    path = next((folder / "SegmentationClass").glob("*.png"))
    path.unlink()
    path.symlink_to(path)
    with pytest.raises(IONError, match=f"{path.name}.*cannot be read"):
        settings(folder, *ON)
