"""The commands that make, convert, merge and judge proposals."""

from __future__ import annotations

import functools
import json
import signal

import cv2
import numpy as np
import pytest
from cli_helpers import load_tool, run_tool
from scipy.io import savemat
from voc_folder import BCCD, object_xml, write_voc

from ion_d2.data.proposals import read_proposals


@pytest.fixture
def proposals(capfd):
    return functools.partial(run_tool, load_tool("proposals"), capfd)


@pytest.fixture
def voc(tmp_path):
    # The pixels 1..20 x 1..10 and 11..40 x 11..30, counted from 1.
    boxes = {"x": [object_xml("cat", (1, 1, 20, 10))], "y": [object_xml("cat", (11, 11, 40, 30))]}
    return f"voc:{write_voc(tmp_path / 'VOC', boxes)}:train"


def fast_rcnn_mat(path):
    boxes, images = np.empty((1, 2), object), np.empty((2, 1), object)
    boxes[0, 0] = np.array([[1, 1, 10, 20], [1, 1, 30, 40]], np.uint16)
    boxes[0, 1] = np.array([[1, 1, 5, 5], [11, 11, 30, 40]], np.uint16)
    images[:, 0] = ["x", "y"]
    savemat(path, {"boxes": boxes, "images": images})
    return path


def test_from_fast_rcnns_file_to_recall(proposals, voc, tmp_path):
    out = tmp_path / "p.pkl"
    mat = fast_rcnn_mat(tmp_path / "voc.mat")
    done = proposals("convert", mat, out, "--from", "fast-rcnn", "--dataset", voc)
    assert done == (0, f"Wrote 4 boxes of 2 images to {out}\n", "")
    # Each object is among the proposals to the pixel.
    status, table, _ = proposals("recall", out, voc)
    assert status == 0 and "2 objects in 2 images" in table
    assert table.splitlines()[3].split() == "| 100 | 2.0 | 100.0 | 100.0 | 100.0 |".split()


def test_merge_and_the_order_of_ids(proposals, voc, tmp_path):
    mat, out = fast_rcnn_mat(tmp_path / "voc.mat"), tmp_path / "p.pkl"
    assert proposals("convert", mat, out, "--from", "fast-rcnn")[0] == 0
    rows = {"y": [[0, 0, 3, 3, 0.5]], "x": []}
    (tmp_path / "more.json").write_text(json.dumps(rows))
    more = tmp_path / "more.pkl"
    assert proposals("convert", tmp_path / "more.json", more, "--from", "json")[0] == 0
    both = tmp_path / "both.pkl"
    assert proposals("merge", both, out, more)[:2] == (0, f"Wrote 5 boxes of 2 images to {both}\n")
    read = read_proposals(both)
    assert read.ids == ["x", "y"] and read.boxes[1].tolist()[1] == [0, 0, 3, 3]
    before = out.read_bytes()
    for sources, code, words in (([more], 2, "two or more files"), ([more, both], 1, "exists")):
        status, _, err = proposals("merge", out, *sources)  # the file to write forgotten
        assert status == code and words in err and out.read_bytes() == before


@pytest.mark.parametrize(
    ("layout", "words"), [("csv", "CSV"), ("mcg", "is not a folder"), ("edge-boxes", "'bbs'")]
)
def test_wrong_formats_are_one_sentence(proposals, tmp_path, layout, words):
    mat = fast_rcnn_mat(tmp_path / "voc.mat")
    status, _, err = proposals("convert", mat, tmp_path / "p.pkl", "--from", layout)
    assert status == 1 and err.startswith("error: ") and err.count("\n") == 1
    assert words in err and "voc.mat" in err and not (tmp_path / "p.pkl").exists()


def test_exchanged_axes_and_missing_images(proposals, voc, tmp_path):
    (tmp_path / "p.csv").write_text("image_id,x0,y0,x1,y1\nx,0,0,29,39\n")
    command = ["convert", tmp_path / "p.csv", tmp_path / "p.pkl", "--from", "csv"]
    assert "misses 1 of the 2 images" in proposals(*command, "--dataset", voc)[2]
    assert "outside the picture" in proposals(*command, "--dataset", voc, "--fill")[2]
    (tmp_path / "p.csv").write_text("image_id,x0,y0,x1,y1\nx,0,0,39,29\n")
    assert proposals(*command, "--dataset", voc, "--fill")[0] == 0
    status, table, _ = proposals("recall", tmp_path / "p.pkl", voc)
    assert status == 0 and table.splitlines()[3].split()[3] == "0.5"  # boxes an image
    assert proposals(*command, "--fill")[0] == 2


@pytest.fixture
def make(capfd, monkeypatch):
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    return functools.partial(run_tool, load_tool("make_proposals"), capfd)


def test_faults_of_the_generator_are_told_first(make, voc, tmp_path, monkeypatch):
    out = tmp_path / "p.pkl"
    assert "--workers: 0 is below 1" in make(voc, out, "--workers", 0)[2]
    assert "--method edge-boxes alone" in make(voc, out, "--model", "model.yml.gz")[2]
    assert "gone" in make("voc:gone:train", out)[2]
    monkeypatch.delattr(cv2, "ximgproc", raising=False)
    status, _, err = make(voc, out)
    assert status == 1 and "pip install opencv-contrib-python-headless" in err
    assert not (tmp_path / "p.pkl.parts").exists()


@pytest.mark.skipif(not hasattr(cv2, "ximgproc"), reason="needs opencv-contrib-python-headless")
@pytest.mark.skipif(not BCCD.is_dir(), reason="needs the blood-cell images")
def test_selective_search_on_photographs(make, proposals, tmp_path, monkeypatch):
    """Two pictures of blood cells: a good part of the cells is covered."""
    for folder in ("Annotations", "JPEGImages"):
        (tmp_path / "VOC").mkdir(exist_ok=True)
        (tmp_path / "VOC" / folder).symlink_to(BCCD / folder)
    lists = tmp_path / "VOC/ImageSets/Main"
    lists.mkdir(parents=True)
    (lists / "two.txt").write_text("BloodImage_00000\nBloodImage_00007\n")
    name, out = f"voc:{tmp_path / 'VOC'}:two", tmp_path / "p.pkl"
    status, told, err = make(name, out, "--workers", 2)
    assert status == 0 and "boxes of 2 images" in told and "2/2" in err
    table = proposals("recall", out, name)[1]
    assert float(table.splitlines()[-1].split()[5]) > 50  # at IoU 0.5 with all boxes
    status, _, err = make(name, out)
    assert status == 1 and "exists already" in err
