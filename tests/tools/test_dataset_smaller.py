"""convert_dataset.py --short-side: pictures, boxes, outlines and label maps become smaller."""

import json

import numpy as np
import pytest
from conversions import COCO, convert, refused, voc_of, write_small_coco
from detectron2.data import DatasetCatalog
from PIL import Image
from voc_folder import annotation_xml, object_xml, write_voc

pytestmark = pytest.mark.usefixtures("catalogs")


@pytest.fixture
def coco(tmp_path):
    return write_small_coco(tmp_path)


@pytest.fixture
def large(tmp_path, coco):
    """A VOC folder with a picture of 640x480, a label map and two objects, one of them a pixel."""
    places = [("cat", (161, 121, 640, 360)), ("dog", (9, 5, 21, 33))]
    root = write_voc(tmp_path / "large", {"a": []}, split="all")
    xml = annotation_xml([object_xml(*place) for place in places], (640, 480))
    (root / "Annotations/a.xml").write_text(xml)
    (root / "SegmentationClass").mkdir()
    ramp = np.zeros((480, 640, 3), np.uint8)
    ramp[:, 320:] = 200
    Image.fromarray(ramp).save(root / "JPEGImages/a.jpg", quality=95)
    labels = np.zeros((480, 640), np.uint8)
    labels[120:360, 160:] = 2
    labels[0] = 255
    Image.fromarray(labels).save(root / "SegmentationClass/a.png")
    (root / "classes.txt").write_text("cat\ndog\n")
    return f"voc:{root}:all"


def test_smaller_pictures_have_smaller_boxes_and_label_maps(capfd, large, tmp_path):
    folder = tmp_path / "small"
    for _ in range(2):  # once more changes nothing
        name = convert(capfd, large, "voc", folder, "--split", "all", "--short-side", 120)
    (record,) = DatasetCatalog.get(name)
    assert (record["width"], record["height"]) == (160, 120)
    assert [each["bbox"] for each in record["annotations"]] == [
        [40, 30, 160, 90],
        [2, 1, 5.25, 8.25],
    ]
    image = np.asarray(Image.open(record["file_name"]).convert("L")).astype(int)
    assert image.shape == (120, 160) and image[:, :78].max() < 20 and image[:, 82:].min() > 180
    label_map = Image.open(record["sem_seg_file_name"])
    assert label_map.getpalette()[6:9] == [0, 128, 0]  # VOC's color of class 2
    labels = np.asarray(label_map)
    assert labels.shape == (120, 160) and (labels[30:90, 40:] == 2).all()
    assert set(np.unique(labels)) <= {0, 2, 255} and (labels == 2).sum() == 60 * 120


def test_pictures_that_are_small_enough_keep_their_bytes(capfd, large, tmp_path):
    name = convert(capfd, large, "yolo", tmp_path / "yolo", "--short-side", 480)
    (record,) = DatasetCatalog.get(name)
    (source,) = DatasetCatalog.get(large)
    with open(record["file_name"], "rb") as new, open(source["file_name"], "rb") as old:
        assert new.read() == old.read()
    assert "sem_seg_file_name" not in record


def test_outlines_become_smaller_too(capfd, coco, tmp_path):
    name = convert(capfd, coco, "labelme", tmp_path / "small", "--short-side", 15)
    record = next(each for each in DatasetCatalog.get(name) if each["annotations"])
    assert (record["width"], record["height"]) == (20, 15)
    outlines = [found["segmentation"] for found in record["annotations"]]
    assert outlines[0] == [[1, 1.5, 6.25, 1.5, 6.25, 5.5], [2, 2.5, 3, 2.5, 3, 5.5]]


def test_cocos_format_and_another_folders_picture_are_refused(capfd, large, tmp_path):
    words = "--short-side is not for COCO"
    refused(capfd, words, large, "coco", tmp_path / "c", "--short-side", 100)
    folder = tmp_path / "small"
    convert(capfd, large, "voc", folder, "--short-side", 100)
    refused(capfd, "a.jpg would be replaced", large, "voc", folder, "--short-side", 120)


def test_smaller_pictures_of_two_sets_are_not_mixed_up(tmp_path, capfd):
    small, smaller = tmp_path / "small", ("--short-side", 15)
    train = voc_of(tmp_path / "tr", "", color="red")
    val = voc_of(tmp_path / "va", "", color="blue")
    convert(capfd, train, "voc", small, "--split", "train", *smaller)
    refused(capfd, "f1.jpg would be replaced", val, "voc", small, "--split", "val", *smaller)
    linked = tmp_path / "linked"
    convert(capfd, train, "voc", linked, "--link")
    refused(capfd, "f1.jpg would be replaced", train, "voc", linked, *smaller)


def test_a_picture_without_a_suffix(coco, tmp_path, capfd):
    (tmp_path / "5/a.jpg").rename(tmp_path / "5/a")
    (tmp_path / "set.json").write_text(json.dumps(COCO).replace("5/a.jpg", "5/a"))
    name = convert(capfd, coco, "labelme", tmp_path / "small", "--short-side", 15)
    assert sorted(r["width"] for r in DatasetCatalog.get(name)) == [20, 20]
    refused(capfd, "5/a is no .jpg or", coco, "yolo", tmp_path / "yolo")


def test_masks_that_smaller_pictures_lose_are_counted(coco, tmp_path, capfd, caplog):
    content = json.loads(json.dumps(COCO))
    mask = {"size": [30, 40], "counts": [600, 600]}
    content["annotations"][1].update(segmentation=mask)
    (tmp_path / "set.json").write_text(json.dumps(content))
    convert(capfd, coco, "yolo", tmp_path / "yolo", "--short-side", 15)
    assert "The run lengths of 1 object(s) are lost." in caplog.text
