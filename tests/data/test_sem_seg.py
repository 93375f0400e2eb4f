import struct
import zlib

import numpy as np
import pytest
from detectron2.data import transforms as T
from fvcore.transforms.transform import PadTransform
from PIL import Image
from refusals import refused
from sbd_file import write_sbd
from scipy.io import savemat
from voc_folder import COCO_VOC20, write_label

from ion_d2.data.sem_seg import read_label_map, transform_label_map
from ion_d2.errors import IONError

SBD_IDS = np.random.default_rng(0).integers(0, 21, (30, 40)).astype(np.uint8)
IDS = np.array([[0, 1, 2], [20, 255, 7]], dtype=np.uint8)


def write_gray_png(path, rows, bits):
    """A grayscale PNG of 1, 2, 4 or 8 bits a pixel, written by hand."""

    def chunk(tag, data):
        return struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data))

    lines = b""
    for row in rows:
        digits = "".join(f"{value:0{bits}b}" for value in row)
        digits += "0" * (-len(digits) % 8)
        lines += b"\0" + bytes(int(digits[i : i + 8], 2) for i in range(0, len(digits), 8))
    header = struct.pack(">IIBBBBB", len(rows[0]), len(rows), bits, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def test_palette_indices_are_kept_as_they_are(tmp_path):
    path = write_label(tmp_path / "a.png", IDS)
    assert Image.open(path).mode == "P"
    labels = read_label_map(path, num_classes=21)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, IDS)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_grayscale_ids_of_any_depth(tmp_path, bits):
    rows = [[0, 1, 0, 1, 1], [1, 2**bits - 1, 0, 0, 1]]
    labels = read_label_map(write_gray_png(tmp_path / "a.png", rows, bits), num_classes=16)
    np.testing.assert_array_equal(labels, rows)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_palettes_of_few_bits(tmp_path, bits):
    image = Image.fromarray(np.array([[0, 1, 1], [1, 0, 2**bits - 1]], dtype=np.uint8))
    image.putpalette([9] * 3 * 2**bits)
    image.save(tmp_path / "a.png", bits=bits)
    labels = read_label_map(tmp_path / "a.png", num_classes=16)
    np.testing.assert_array_equal(labels, [[0, 1, 1], [1, 0, 2**bits - 1]])


def test_ids_out_of_range_are_refused_by_name(tmp_path):
    path = write_label(tmp_path / "label7.png", IDS)
    with refused(path, "7, 20,", "0..6"):
        read_label_map(path, num_classes=7)
    with refused(path, " 255,"):
        read_label_map(path, num_classes=21, ignore_label=254)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "I;16"])
def test_colors_and_16_bits_are_refused(tmp_path, mode):
    Image.new(mode, (4, 3)).save(tmp_path / "colors.png")
    with refused("colors.png", mode):
        read_label_map(tmp_path / "colors.png", 21)


def test_missing_and_broken_labels_are_named(tmp_path):
    with refused("none.png"):
        read_label_map(tmp_path / "none.png", 21)
    path = write_label(tmp_path / "cut.png", np.arange(6400).reshape(80, 80) % 20)
    path.write_bytes(path.read_bytes()[:-200])
    with refused(path):
        read_label_map(path, 21)


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("name", ["2008_000002.mat", "UPPER.MAT"])
def test_a_file_of_sbd_is_a_label_map(tmp_path, name, compress):
    labels = read_label_map(write_sbd(tmp_path / name, SBD_IDS, compress), 21)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, SBD_IDS)


def test_ids_that_matlab_keeps_as_doubles(tmp_path):
    savemat(tmp_path / "a.mat", {"GTcls": {"Segmentation": SBD_IDS.astype(float)}})
    np.testing.assert_array_equal(read_label_map(tmp_path / "a.mat", 21), SBD_IDS)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"other": 1.0, "another": 2.0}, "another, other"),
        ({}, "nothing"),
        ({"GTinst": {"Segmentation": SBD_IDS, "Categories": [1]}}, "GTinst"),
        *(({"GTcls": content}, "GTcls.Segmentation") for content in (
            SBD_IDS, {"Boundaries": SBD_IDS}, [{"Segmentation": SBD_IDS}] * 2,
            {"Segmentation": "text"}, {"Segmentation": np.stack([SBD_IDS] * 3)})),
        ({"GTcls": {"Segmentation": SBD_IDS.astype(float) * 1000}}, "0..255"),
        ({"GTcls": {"Segmentation": np.full((2, 2), np.nan)}}, "0..255"),
        ({"GTcls": {"Segmentation": np.full((3, 3), 21)}}, "0..20"),
    ],
)  # fmt: skip
def test_matlab_files_of_other_layouts_are_told(tmp_path, content, words):
    savemat(tmp_path / "odd.mat", content)
    with refused("odd.mat", words):
        read_label_map(tmp_path / "odd.mat", 21)


def test_damaged_matlab_files_are_told(tmp_path):
    path = write_sbd(tmp_path / "a.mat", SBD_IDS)
    whole, rng, told = path.read_bytes(), np.random.default_rng(1), 0
    for number in range(120):
        damaged = bytearray(whole)
        if number % 2:
            damaged = damaged[: rng.integers(len(whole))]
        else:
            damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            read_label_map(path, 256)
        except IONError as error:
            assert str(path) in str(error)
            told += 1
    assert told > 80  # a bit of the header's text may be anything
    with refused("none.mat"):
        read_label_map(tmp_path / "none.mat", 21)


@pytest.mark.parametrize("size", [(7, 5), (33, 31), (100, 3)])
def test_odd_resizes_invent_no_ids(size):
    labels = np.random.default_rng(1).choice(np.array([0, 20, 255], dtype=np.uint8), (21, 17))
    moved = transform_label_map(labels, T.TransformList([T.ResizeTransform(21, 17, *size)]), 21)
    assert moved.shape == size
    assert moved.dtype == np.int64
    assert set(np.unique(moved)) <= {0, 20, 255}


@pytest.mark.parametrize("fill", [0, 255])
@pytest.mark.parametrize("ignore", [255, 100])
def test_padding_is_ignored_whatever_fills_it(fill, ignore):
    labels = np.array([[0, 1], [2, ignore]], dtype=np.uint8)
    pad = T.TransformList([PadTransform(1, 0, 2, 3, seg_pad_value=fill)])
    expected = np.full((5, 5), ignore)
    expected[:2, 1:3] = labels
    np.testing.assert_array_equal(transform_label_map(labels, pad, 3, ignore), expected)


def test_the_corners_of_a_rotation_are_ignored():
    labels = np.zeros((20, 20), dtype=np.uint8)
    turned = transform_label_map(labels, T.TransformList([T.RotationTransform(20, 20, 45)]), 21)
    assert turned[0, 0] == turned[-1, -1] == 255
    assert turned[turned.shape[0] // 2, turned.shape[1] // 2] == 0


@pytest.mark.skipif(not COCO_VOC20.is_dir(), reason="the coco_voc20 data is not there")
def test_coco_voc20_pixels_match_its_readme():
    files = sorted((COCO_VOC20 / "SegmentationClass").glob("*.png"))
    counts = sum(np.bincount(read_label_map(f, 21).ravel(), minlength=256) for f in files)
    share = 100 * counts / counts.sum()
    assert len(files) == 101
    # background, person, diningtable, void
    np.testing.assert_allclose(share[[0, 15, 11, 255]], [77.5, 8.2, 7.5, 0.5], atol=0.05)
