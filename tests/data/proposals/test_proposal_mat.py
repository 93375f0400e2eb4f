"""Matlab files of every published layout, written by scipy, against numbers worked out by hand."""

import numpy as np
import pytest
from scipy.io import savemat

from ion_d2.data.proposals.mat import read_mat
from ion_d2.errors import IONError

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
    with pytest.raises(IONError, match="voc.mat has no cell array 'images'.*--dataset"):
        read_mat(tmp_path / "voc.mat", "fast-rcnn")
    with pytest.raises(IONError, match="voc.mat has boxes of 2 images, but there are 3"):
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


def test_edge_boxes_of_a_set(tmp_path):
    savemat(tmp_path / "set.mat", {"bbs": cells(XYWHS, XYWHS[:1])})
    read = read_mat(tmp_path / "set.mat", "edge-boxes", ids=["a", "b"])
    np.testing.assert_array_equal(read.boxes[0], EXPECTED)
    np.testing.assert_array_equal(read.boxes[1], EXPECTED[:1])


@pytest.mark.parametrize(
    ("layout", "content", "words"),
    [
        ("mcg", {"regions": YXYX}, r"1\.mat.*unknown layout.*regions.*'boxes'"),
        ("mcg", {"boxes": YXYX}, r"1\.mat.*unknown layout.*'scores'"),
        ("xyxy", {"boxes": XYWHS}, r"1\.mat.*unknown layout.*\(2, 5\).*4 numbers"),
        ("xyxy", {"boxes": "text"}, r"1\.mat.*unknown layout"),
        ("xyxy", {"boxes": cells(XYXY)}, r"1\.mat.*unknown layout.*object"),
        ("edge-boxes", {"bbs": XYXY}, r"1\.mat.*unknown layout.*5 numbers"),
        ("xyxy", {"boxes": XYXY, "scores": [[np.nan], [1]]}, "image '1'.*score 0 is nan"),
        ("fast-rcnn", {"boxes": cells(XYXY)}, "is a folder"),
    ],
)
def test_unknown_layouts_are_told(tmp_path, layout, content, words):
    savemat(tmp_path / "1.mat", content)
    with pytest.raises(IONError, match=words) as error:
        read_mat(tmp_path, layout)
    assert "\n" not in str(error.value)


def test_other_faults_are_told(tmp_path):
    with pytest.raises(IONError, match="holds no .mat file"):
        read_mat(tmp_path, "mcg")
    path = tmp_path / "a.mat"
    savemat(path, {"boxes": XYXY})
    with pytest.raises(IONError, match="a.mat: 'boxes' is an array.*cell array"):
        read_mat(path, "fast-rcnn")
    with pytest.raises(IONError, match="a.mat is not a folder"):
        read_mat(path, "mcg")
    savemat(path, {"boxes": cells(XYWHS), "images": cells("x")})
    with pytest.raises(IONError, match="a.mat, image 'x' is of an unknown layout"):
        read_mat(path, "fast-rcnn")
    path.write_bytes(path.read_bytes()[:150])
    with pytest.raises(IONError, match="a.mat cannot be read as a Matlab file"):
        read_mat(path, "fast-rcnn")
    with pytest.raises(IONError, match="gone.mat cannot be read"):
        read_mat(tmp_path / "gone.mat", "fast-rcnn")


def test_matlabs_hdf5_format_is_told(tmp_path):
    path = tmp_path / "new.mat"
    # The header that Matlab writes: text, version 2.0, byte order.
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\x89HDF\r\n\x1a\n" * 80)
    with pytest.raises(IONError, match="new.mat is in Matlab's format 7.3.*'-v7'"):
        read_mat(path, "fast-rcnn")
