import copy
import logging

import numpy as np
import pytest
from refusals import refused
from sbd_file import write_sbd
from voc_folder import object_xml, write_label, write_voc

from ion_d2.data.label_folders import add_label_files, log_label_count
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
