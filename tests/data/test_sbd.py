import numpy as np
import pytest
from refusals import refused
from sbd_file import write_sbd
from scipy.io import savemat

from ion_d2.data.sbd import read_sbd_label
from ion_d2.data.sem_seg import read_label_map
from ion_d2.errors import IONError

IDS = np.random.default_rng(0).integers(0, 21, (30, 40)).astype(np.uint8)


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("name", ["2008_000002.mat", "UPPER.MAT"])
def test_a_file_of_sbd_is_a_label_map(tmp_path, name, compress):
    labels = read_label_map(write_sbd(tmp_path / name, IDS, compress), 21)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, IDS)


def test_ids_kept_as_doubles(tmp_path):
    savemat(tmp_path / "a.mat", {"GTcls": {"Segmentation": IDS.astype(float)}})
    np.testing.assert_array_equal(read_sbd_label(str(tmp_path / "a.mat")), IDS)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"other": 1.0, "another": 2.0}, "another, other"),
        ({}, "nothing"),
        ({"GTinst": {"Segmentation": IDS, "Categories": [1]}}, "GTinst"),
        ({"GTcls": {"Boundaries": IDS}}, "GTcls.Segmentation"),
        ({"GTcls": IDS}, "GTcls.Segmentation"),
        ({"GTcls": {"Segmentation": "text"}}, "GTcls.Segmentation"),
        ({"GTcls": {"Segmentation": np.stack([IDS] * 3)}}, "GTcls.Segmentation"),
        ({"GTcls": [{"Segmentation": IDS}, {"Segmentation": IDS}]}, "GTcls.Segmentation"),
        ({"GTcls": {"Segmentation": IDS.astype(float) * 1000}}, "0..255"),
        ({"GTcls": {"Segmentation": np.full((2, 2), np.nan)}}, "0..255"),
        ({"GTcls": {"Segmentation": np.full((3, 3), 21)}}, "0..20"),
    ],
)
def test_other_layouts_are_told(tmp_path, content, words):
    savemat(tmp_path / "odd.mat", content)
    with refused("odd.mat", words):
        read_label_map(tmp_path / "odd.mat", 21)


def test_damaged_files_are_told(tmp_path):
    path = write_sbd(tmp_path / "a.mat", IDS)
    whole, rng, told = path.read_bytes(), np.random.default_rng(1), 0
    for number in range(120):
        damaged = bytearray(whole)
        if number % 2:
            damaged = damaged[: rng.integers(len(whole))]
        else:
            damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            read_sbd_label(str(path))
        except IONError as error:
            assert str(path) in str(error)
            told += 1
    assert told > 80  # a bit of the header's text may be anything
    with refused("none.mat"):
        read_sbd_label(str(tmp_path / "none.mat"))
