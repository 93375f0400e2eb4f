"""Matlab files of every published layout, written by scipy, against numbers worked out by hand."""

import numpy as np
import pytest
from proposals_mat import read_mat
from refusals import refused
from scipy.io import savemat

# The first pixel of a picture; and the pixels x = 4..7, y = 2..3, counted from 1.
YXYX = np.array([[1, 1, 1, 1], [2, 4, 3, 7]])
XYXY = YXYX[:, [1, 0, 3, 2]]
XYWHS = np.array([[1, 1, 1, 1, 0.9], [4, 2, 4, 2, 0.1]])
# Counted from 0, right and bottom exclusive.
EXPECTED = [[0, 0, 1, 1], [3, 1, 7, 3]]


def cells(*arrays):
    column = np.empty((len(arrays), 1), dtype=object)
    for i, array in enumerate(arrays):
        column[i, 0] = array
    return column


@pytest.mark.parametrize("dtype", [np.uint16, np.float64, np.int32])
@pytest.mark.parametrize("across", [False, True])
def test_fast_rcnns_selective_search_data(tmp_path, dtype, across):
    boxes, images = cells(YXYX.astype(dtype), np.zeros((0, 4), dtype)), cells("000005", "2008_1")
    if across:
        boxes, images = boxes.T, images.T
    savemat(tmp_path / "voc.mat", {"boxes": boxes, "images": images})
    read = read_mat(tmp_path / "voc.mat", "fast-rcnn")
    assert read.ids == ["000005", "2008_1"]
    np.testing.assert_array_equal(read.boxes[0], EXPECTED)
    np.testing.assert_array_equal(read.scores[0], [0, -1])
    assert read.boxes[1].shape == (0, 4)


def test_images_from_the_dataset_where_the_file_has_none(tmp_path):
    savemat(tmp_path / "voc.mat", {"boxes": cells(YXYX, YXYX)})
    assert read_mat(tmp_path / "voc.mat", "fast-rcnn", ids=[4, 9]).ids == [4, 9]
    with refused("voc.mat", "--dataset"):
        read_mat(tmp_path / "voc.mat", "fast-rcnn")
    with refused("voc.mat", "2 images", "3 image names"):
        read_mat(tmp_path / "voc.mat", "fast-rcnn", ids=[4, 9, 11])


@pytest.mark.parametrize(
    ("layout", "content", "scores"),
    [
        ("mcg", {"boxes": YXYX, "scores": [[0.7], [0.2]]}, [0.7, 0.2]),
        ("mcg", {"bboxes": YXYX.astype(np.uint16), "bboxes_scores": [0.7, 0.2]}, [0.7, 0.2]),
        ("xyxy", {"boxes": XYXY, "scores": [[0.7, 0.2]]}, [0.7, 0.2]),
        ("xyxy", {"boxes": XYXY.astype(np.uint8)}, [0, -1]),
        ("edge-boxes", {"bbs": XYWHS}, [0.9, 0.1]),
    ],
)
def test_folders_with_a_file_per_image(tmp_path, layout, content, scores):
    folder = tmp_path / "COCO_val2014_0"
    folder.mkdir()
    savemat(folder / "COCO_val2014_000000000042.mat", content)
    read = read_mat(tmp_path, layout)
    assert read.ids == ["COCO_val2014_000000000042"]
    np.testing.assert_array_equal(read.boxes[0], EXPECTED)
    np.testing.assert_allclose(read.scores[0], scores)


def test_files_of_one_name_are_called_by_their_paths(tmp_path):
    """As are all where there is a dataset, which may have images of the same name."""
    for place in ("b", "a"):
        (tmp_path / place).mkdir()
        savemat(tmp_path / place / "im.0.mat", {"boxes": XYXY})
    assert read_mat(tmp_path, "xyxy").ids == ["a/im.0", "b/im.0"]
    assert read_mat(tmp_path / "a", "xyxy", ids=["x"]).ids == ["im.0"]
    (tmp_path / "b/im.0.mat").unlink()
    assert read_mat(tmp_path, "xyxy").ids == ["im.0"]
    assert read_mat(tmp_path, "xyxy", ids=["x"]).ids == ["a/im.0"]


def test_edge_boxes_of_a_set(tmp_path):
    savemat(tmp_path / "set.mat", {"bbs": cells(XYWHS, XYWHS[:1])})
    read = read_mat(tmp_path / "set.mat", "edge-boxes", ids=["a", "b"])
    np.testing.assert_array_equal(read.boxes[0], EXPECTED)
    np.testing.assert_array_equal(read.boxes[1], EXPECTED[:1])


SET = {"boxes": cells(XYWHS), "images": cells("x")}


@pytest.mark.parametrize(
    ("layout", "is_set", "content", "words"),
    [
        ("mcg", False, {"regions": YXYX}, ["1.mat", "regions", "'boxes'"]),
        ("mcg", False, {"boxes": YXYX}, ["1.mat", "'scores'"]),
        ("xyxy", False, {"boxes": XYWHS}, ["1.mat", "(2, 5)", "4 numbers"]),
        ("xyxy", False, {"boxes": "text"}, ["1.mat"]),
        ("xyxy", False, {"boxes": cells(XYXY)}, ["1.mat", "object"]),
        ("edge-boxes", False, {"bbs": XYXY}, ["1.mat", "5 numbers"]),
        ("xyxy", False, {"boxes": XYXY, "scores": [[np.nan], [1]]}, ["image '1'", "score 0"]),
        ("xyxy", False, {"boxes": XYXY, "scores": cells("a", "b")}, ["1.mat", "the scores are"]),
        ("xyxy", False, {"boxes": XYXY, "scores": "ab"}, ["1.mat", "the scores are"]),
        ("fast-rcnn", False, {"boxes": cells(XYXY)}, ["one file"]),
        ("mcg", False, None, ["no .mat file"]),
        ("fast-rcnn", True, {"boxes": XYXY}, ["1.mat", "cell array"]),
        ("mcg", True, {"boxes": XYXY}, ["1.mat", "folder"]),
        ("fast-rcnn", True, SET, ["1.mat", "image 'x'"]),
        ("fast-rcnn", True, None, ["1.mat"]),
    ],
)
def test_faults_are_told(tmp_path, layout, is_set, content, words):
    path = tmp_path / "1.mat"
    if content is not None:
        savemat(path, content)
    with refused(tmp_path, *words):
        read_mat(path if is_set else tmp_path, layout)


def test_damaged_files_and_matlabs_hdf5_are_told(tmp_path):
    path = tmp_path / "a.mat"
    savemat(path, SET)
    path.write_bytes(path.read_bytes()[:150])
    with refused("a.mat", "cannot be read"):
        read_mat(path, "fast-rcnn")
    # The header that Matlab writes: text, version 2.0, byte order.
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\x89HDF\r\n\x1a\n" * 80)
    with refused("a.mat", "7.3", "'-v7'"):
        read_mat(path, "fast-rcnn")
