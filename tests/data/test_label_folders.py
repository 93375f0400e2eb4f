import copy
import logging

import numpy as np
import pytest
from refusals import refused
from sbd_file import write_sbd
from voc_folder import object_xml, write_label, write_voc

from ion_d2.data.sem_seg import add_label_files, log_label_count
from ion_d2.data.voc_layout import load_voc_layout

IDS = np.zeros((30, 40))


@pytest.fixture
def root(tmp_path):
    """Images a to d; a and b have labels of VOC, b and c of SBD, c and d of someone else."""
    objects = [object_xml("dog", (1, 1, 9, 9))]
    root = write_voc(tmp_path / "VOC2012", dict.fromkeys("abcd", objects))
    for folder, ids in (("SegmentationClass", "ab"), ("Extra", "bc"), ("../elsewhere", "cd")):
        (root / folder).mkdir()
        for image_id in ids:
            if folder == "Extra":
                write_sbd(root / folder / f"{image_id}.mat", IDS)
            else:
                write_label(root / folder / f"{image_id}.png", IDS)
    return root


def labels_of(root, *folders):
    dicts = load_voc_layout(root, "train", ["dog"])
    before = copy.deepcopy(dicts)
    labeled = add_label_files(dicts, folders)
    assert dicts == before
    assert [r["image_id"] for r in labeled] == list("abcd")
    files = [r.get("sem_seg_file_name") for r in labeled]
    return [f and f.replace(str(root.parent), "").lstrip("/") for f in files]


def test_own_labels_come_first_then_the_folders_in_their_order(root):
    voc = ["VOC2012/SegmentationClass/a.png", "VOC2012/SegmentationClass/b.png"]
    elsewhere = str(root.parent / "elsewhere")
    assert labels_of(root) == [*voc, None, None]
    assert labels_of(root, "Extra") == [*voc, "VOC2012/Extra/c.mat", None]
    assert labels_of(root, "Extra", elsewhere) == [
        *voc, "VOC2012/Extra/c.mat", "elsewhere/d.png"]  # fmt: skip
    assert labels_of(root, elsewhere, "Extra")[2:] == ["elsewhere/c.png", "elsewhere/d.png"]


def test_a_plain_name_may_be_missing_and_a_path_may_not(root, monkeypatch):
    assert labels_of(root, "Nowhere", "Extra")[2] == "VOC2012/Extra/c.mat"
    with refused("DATASETS.SEM_SEG_DIRS", "some/where"):
        labels_of(root, "some/where")
    monkeypatch.setenv("HOME", str(root.parent))
    assert labels_of(root, "~/elsewhere")[3] == "elsewhere/d.png"
    monkeypatch.chdir(root.parent)
    assert labels_of(root, "./elsewhere")[3] == "./elsewhere/d.png"


def test_the_number_of_labels_is_logged(caplog):
    masked = {"annotations": [{"segmentation": None}, {"segmentation": [[0, 0, 1, 1, 2, 0]]}]}
    dicts = [{"sem_seg_file_name": "a.png"}, masked, {"annotations": [{}]}, {}]
    with caplog.at_level(logging.INFO):
        log_label_count(dicts)
        log_label_count(dicts[2:])
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("INFO", "Segmentation labels: 2 of 4 training images."),
        ("WARNING", "Segmentation labels: 0 of 2 training images."),
    ]


def nested(tmp_path, *labels):
    """Pictures of two clips, both called im0, with label maps in these places."""
    names = [f"set/JPEGImages/{clip}/im0.jpg" for clip in "ab"]
    for name in labels:
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_label(path, IDS)
    return [{"file_name": str(tmp_path / name), "image_id": i} for i, name in enumerate(names)]


def found(tmp_path, dicts, *folders):
    files = [r.get("sem_seg_file_name") for r in add_label_files(dicts, folders)]
    return [f and f.replace(str(tmp_path / "set"), "").lstrip("/") for f in files]


def test_pictures_in_subfolders_have_maps_in_subfolders(tmp_path):
    dicts = nested(tmp_path, "Seg/a/im0.png", "Seg/b/im0.png")
    for folder in ("Seg", str(tmp_path / "set/Seg")):
        assert found(tmp_path, dicts, folder) == ["Seg/a/im0.png", "Seg/b/im0.png"]
        # A picture that is there twice, as in two splits, is one picture.
        assert found(tmp_path, [dicts[1]] * 2, folder) == ["Seg/b/im0.png"] * 2


def test_a_map_that_two_pictures_could_have_is_nobodys(tmp_path):
    dicts = nested(tmp_path, "Seg/im0.png", "More/a/im0.png", "More/im0.png")
    for folder in ("Seg", str(tmp_path / "set/Seg")):
        assert found(tmp_path, dicts, folder) == [None, None]
        assert found(tmp_path, dicts, folder, "More") == ["More/a/im0.png", None]
        assert found(tmp_path, dicts[:1], folder) == ["Seg/im0.png"]


def test_a_plain_name_is_beside_each_datasets_own_pictures(tmp_path):
    """Two datasets may call different pictures alike."""
    dicts = []
    for name in ("one", "two"):
        root = write_voc(tmp_path / "set" / name, {"im0": []})
        (root / "Seg").mkdir()
        write_label(root / "Seg/im0.png", IDS)
        dicts += load_voc_layout(root, "train", ["dog"])
    assert found(tmp_path, dicts, "Seg") == ["one/Seg/im0.png", "two/Seg/im0.png"]
