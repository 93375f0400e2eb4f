import os

import pytest
from refusals import refused
from voc_folder import object_xml, write_split, write_voc
from voc_lists import write_lists

from ion_d2.data.voc_split import read_split

IMAGES07 = ("000005", "000007", "000032", "000033")
IMAGES12 = ("2007_000027", "2007_000032", "2008_000002", "2008_000003", "2009_000001",
            "2010_000009")  # fmt: skip


@pytest.fixture
def root(tmp_path):
    """Every kind of image that must stay out: see the lists."""
    objects = [object_xml("dog", (3, 4, 30, 25))]
    voc07 = write_voc(tmp_path / "VOC2007", dict.fromkeys(IMAGES07, objects), split="trainval")
    voc12 = write_voc(tmp_path / "VOC2012", dict.fromkeys(IMAGES12, objects), split="trainval")
    write_split(voc07, "test", "000001\n000027\n")
    write_split(voc12, "val", "2008_000003\n")
    for root, task, split, text in (
        (voc07, "Layout", "test", "000033 1\n000033 2\n"),
        (voc12, "Segmentation", "val", "2009_000001\n"),
        (voc12, "Action", "test", "2010_000009 1\n"),
    ):
        (root / "ImageSets" / task).mkdir(exist_ok=True)
        (root / "ImageSets" / task / f"{split}.txt").write_text(text)
    return tmp_path


def test_no_image_of_a_test_set_under_any_name(root):
    counts = write_lists(str(root))
    assert read_split(root / "VOC2007", "trainval_0712S") == ["000005", "000007", "000032"]
    assert read_split(root / "VOC2012", "trainval_0712S") == [
        "2007_000032", "2008_000002", "2008_000003", "2009_000001"]  # fmt: skip
    assert read_split(root / "VOC2012", "train_0712S") == ["2007_000032", "2008_000002"]
    assert counts == {
        "VOC2007:trainval_0712S": 3, "VOC2012:trainval_0712S": 4, "VOC2012:train_0712S": 2
    }  # fmt: skip

    files = sorted(root.glob("*/ImageSets/Main/*"))
    before = [file.stat().st_mtime_ns for file in files]
    assert len(files) == 7
    write_lists(str(root))
    assert before == [file.stat().st_mtime_ns for file in files]


def test_an_unknown_test_set_or_one_of_all_images_is_told(root):
    os.remove(root / "VOC2007" / "ImageSets" / "Main" / "test.txt")
    with refused("VOC2007/ImageSets/Main/test.txt"):
        write_lists(str(root))
    write_split(root / "VOC2007", "test", "\n".join(IMAGES07))
    with refused("VOC2007", "trainval_0712S"):
        write_lists(str(root))
    assert not list(root.glob("*/ImageSets/Main/*_0712S.txt"))
