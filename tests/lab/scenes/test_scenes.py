"""Synthetic scenes on disk: format, boxes against labels, determinism, interruption, bad input."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from cli_helpers import contents
from PIL import Image

from ion_d2.errors import IONError
from ion_lab.scenes import FAMILY_CLASSES, SceneSettings, compose_scene, generate_scenes
from ion_lab.scenes import scene_set as generate
from ion_lab.scenes.voc_writer import voc_palette

ALL = tuple(FAMILY_CLASSES)


@pytest.fixture(scope="module")
def small_set(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes") / "set"
    return generate_scenes(root, num_train=5, num_test=3, families=ALL, seed=3)


def test_folders_lists_and_classes(small_set):
    root = small_set.root
    assert small_set.classes == tuple(c for names in FAMILY_CLASSES.values() for c in names)
    assert (root / "classes.txt").read_text().split() == list(small_set.classes)
    for split, count in (("trainval", 5), ("test", 3)):
        for folder in ("Main", "Segmentation"):
            names = (root / "ImageSets" / folder / f"{split}.txt").read_text().split()
            assert len(names) == len(set(names)) == count
        for name in names:
            for file in (f"Annotations/{name}.xml", f"JPEGImages/{name}.jpg"):
                assert (root / file).is_file()
            assert (root / f"SegmentationClass/{name}.png").is_file()
    arguments = json.loads((root / "scenes.json").read_text())["arguments"]
    assert (arguments["seed"], arguments["trainval"], arguments["test"]) == (3, 5, 3)


def test_boxes_equal_the_extent_of_the_labels(small_set):
    root, classes = small_set.root, small_set.classes
    seen = 0
    for path in sorted((root / "Annotations").glob("*.xml")):
        tree = ET.parse(path)
        image = np.asarray(Image.open(root / "JPEGImages" / tree.findtext("filename")))
        size = [int(tree.findtext(f"size/{k}")) for k in ("height", "width", "depth")]
        assert size == list(image.shape)
        png = Image.open(root / "SegmentationClass" / f"{path.stem}.png")
        assert png.mode == "P"
        left = np.asarray(png).copy()
        for item in tree.findall("object"):
            assert (item.findtext("truncated"), item.findtext("difficult")) == ("0", "0")
            assert item.findtext("pose")
            corners = ("xmin", "ymin", "xmax", "ymax")
            x0, y0, x1, y1 = (int(item.findtext(f"bndbox/{corner}")) for corner in corners)
            window = left[y0 - 1 : y1, x0 - 1 : x1]
            mask = window == classes.index(item.findtext("name")) + 1
            # Every edge of the box touches the mask, and nothing of another class is inside.
            assert mask[0].any() and mask[-1].any() and mask[:, 0].any() and mask[:, -1].any()
            assert not window[~mask].any()
            window[:] = 0
            seen += 1
        assert not left.any()
    assert seen > 40


def test_palette_is_that_of_voc():
    palette = np.array(voc_palette()).reshape(256, 3)
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 7: (128, 128, 128), 8: (64, 0, 0)}
    known.update({15: (192, 128, 128), 20: (0, 64, 128), 255: (224, 224, 192)})
    assert all(tuple(palette[label]) == color for label, color in known.items())


def test_sizes_gaps_and_packing():
    sizes = {name: [] for names in FAMILY_CLASSES.values() for name in names}
    crowded, pictures = 0, 40
    for index in range(pictures):
        scene = compose_scene(SceneSettings(families=ALL, size=288), "trainval", index)
        boxes = np.array([item.box for item in scene.objects])
        for item in scene.objects:
            x0, y0, x1, y1 = item.box
            sizes[item.name] += [x1 - x0, y1 - y0]
        first, second = boxes[:, None], boxes[None]
        ends, starts = (f(first, second) for f in (np.minimum, np.maximum))
        assert not np.triu((ends[..., 2:] > starts[..., :2]).all(axis=2), 1).any()
        cells = (boxes[:, :2] + boxes[:, 2:]) // 32
        crowded += np.unique(cells, axis=0, return_counts=True)[1].max() > 1
    limits = dict.fromkeys(("tile_checked", "tile_striped"), (8, 14))
    limits.update(dict.fromkeys(("cross", "triangle"), (24, 60)))
    for name, values in sizes.items():
        low, high = limits.get(name, (20, 40))
        assert low <= min(values) and max(values) <= high, name
    assert crowded > pictures // 3  # two tile centers in one cell of stride 16


def test_same_arguments_give_the_same_bytes_and_more_pictures_extend_the_set(tmp_path, small_set):
    again = generate_scenes(tmp_path / "a", num_train=5, num_test=3, families=ALL[::-1], seed=3)
    assert contents(again.root) == contents(small_set.root)
    larger = generate_scenes(tmp_path / "b", num_train=7, num_test=4, families=ALL, seed=3)
    larger, smaller = contents(larger.root), contents(small_set.root)
    pictures = [name for name in smaller if "_0" in name]
    assert len(pictures) == 3 * 8 and all(larger[name] == smaller[name] for name in pictures)
    other = generate_scenes(tmp_path / "c", num_train=1, num_test=1, families=ALL, seed=4).root
    first = "JPEGImages/trainval_000000.jpg"
    trainval, test = other / first, other / first.replace("trainval", "test")
    assert trainval.read_bytes() not in (test.read_bytes(), smaller[first])


def test_repeating_writes_nothing_and_new_arguments_replace_the_set(tmp_path, monkeypatch):
    first = generate_scenes(tmp_path, num_train=3, num_test=1)
    assert first.written
    with monkeypatch.context() as patch:
        patch.setattr(generate, "write_scene", None)
        assert not generate_scenes(tmp_path, num_train=3, num_test=1).written
    for name in ("JPEGImages/test_000000.jpg", "ImageSets/Main/test.txt", "classes.txt"):
        (tmp_path / name).unlink()
        assert generate_scenes(tmp_path, num_train=3, num_test=1).written
    generate_scenes(tmp_path, num_train=2, num_test=1, seed=1)
    assert len(list((tmp_path / "JPEGImages").iterdir())) == 3
    assert json.loads((tmp_path / "scenes.json").read_text())["arguments"]["seed"] == 1


def test_a_file_of_the_users_own_is_not_deleted(tmp_path):
    generate_scenes(tmp_path, num_train=1, num_test=1)
    for name in ("JPEGImages/mine.jpg", "ImageSets/Main/all.txt"):
        (tmp_path / name).write_text("mine")
        assert not generate_scenes(tmp_path, num_train=1, num_test=1).written
        with pytest.raises(IONError, match=f"{name} is none of the synthetic scenes.*move it"):
            generate_scenes(tmp_path, num_train=2, num_test=1)
        (tmp_path / name).unlink()
    assert generate_scenes(tmp_path, num_train=2, num_test=1).written


def test_interrupted_writing_is_not_taken_for_a_set(tmp_path, monkeypatch):
    clean = generate_scenes(tmp_path / "clean", num_train=4, num_test=2)
    real, calls = generate.write_scene, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(generate, "write_scene", interrupted)
        with pytest.raises(KeyboardInterrupt):
            generate_scenes(tmp_path / "cut", num_train=4, num_test=2)
    assert not (tmp_path / "cut/scenes.json").exists()
    assert not list((tmp_path / "cut/ImageSets").rglob("*.txt"))
    assert generate_scenes(tmp_path / "cut", num_train=4, num_test=2).written
    assert contents(tmp_path / "cut") == contents(clean.root)


def test_foreign_folders_are_left_alone(tmp_path):
    (tmp_path / "JPEGImages").mkdir()
    (tmp_path / "JPEGImages/mine.jpg").write_bytes(b"x")
    for manifest in (None, "{broken", '{"kind": "something else"}'):
        if manifest:
            (tmp_path / "scenes.json").write_text(manifest)
        with pytest.raises(IONError, match="other than synthetic scenes"):
            generate_scenes(tmp_path, num_train=1, num_test=1)
        assert (tmp_path / "JPEGImages/mine.jpg").read_bytes() == b"x"
    with pytest.raises(IONError, match="mine.jpg"):
        generate_scenes(tmp_path / "JPEGImages/mine.jpg", num_train=1, num_test=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"families": ("outsider",)}, "outsider"),
        ({"families": ()}, "no family"),
        ({"cue": "bell"}, "bell"),
        ({"seed": -1}, "-1"),
        ({"distance": 0}, "distance is 0"),
        ({"distance": 200}, "at least 283"),
        ({"size": 190}, "size is 190"),
        ({"num_test": -2}, "-2"),
    ],
)
def test_bad_arguments_are_named_before_anything_is_written(tmp_path, arguments, message):
    with pytest.raises(IONError, match=message):
        generate_scenes(tmp_path / "out", **{"num_train": 1, "num_test": 1, **arguments})
    assert not (tmp_path / "out").exists()


def test_unwritable_folder_is_one_clear_error(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(generate, "write_scene", full)
    with pytest.raises(IONError, match="No space left"):
        generate_scenes(tmp_path, num_train=1, num_test=1)
