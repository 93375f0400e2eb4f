"""Datasets from one format to another and back: the same objects, and what is lost is told."""

import base64
import errno
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
import pytest
import yaml
from cli_helpers import load_tool, run_tool
from conversions import COCO, FORMS, convert, refused, voc_of, write_small_coco
from detectron2.data import DatasetCatalog
from detectron2.structures import BoxMode
from PIL import Image
from voc_folder import BCCD, object_xml

from ion_d2.data import class_names

pytestmark = pytest.mark.usefixtures("catalogs")


@pytest.fixture
def coco(tmp_path):
    return write_small_coco(tmp_path)


def objects_of(name):
    """The class and the corners of each object, picture after picture."""
    records = [record["annotations"] for record in DatasetCatalog.get(name)]
    classes = class_names([name])
    found = [(picture, each) for picture, objects in enumerate(records) for each in objects]
    boxes = [BoxMode.convert(list(o["bbox"]), o["bbox_mode"], BoxMode.XYXY_ABS) for _, o in found]
    return [(picture, classes[each["category_id"]]) for picture, each in found], boxes


def assert_same_objects(name, other):
    (labels, boxes), (other_labels, other_boxes) = objects_of(name), objects_of(other)
    assert labels and labels == other_labels
    np.testing.assert_allclose(boxes, other_boxes, atol=1e-4)


@pytest.mark.parametrize("first", FORMS)
@pytest.mark.parametrize("second", FORMS)
def test_to_a_format_and_to_another(coco, tmp_path, capfd, first, second):
    there = convert(capfd, coco, first, tmp_path / "first")
    back = convert(capfd, there, second, tmp_path / "second", "--link", "--split", "val")
    assert_same_objects(back, coco)
    assert class_names([back]) == ["cat", "dog"] and len(DatasetCatalog.get(back)) == 2
    assert all(record["file_name"].endswith(".jpg") for record in DatasetCatalog.get(back))


def test_outlines_of_several_parts_keep_their_area(coco, tmp_path, capfd):
    name = convert(capfd, coco, "yolo", tmp_path / "yolo")
    for before, after in zip(DatasetCatalog.get(coco), DatasetCatalog.get(name)):
        for old, new in zip(before["annotations"], after["annotations"]):
            masks = [
                mask_util.decode(mask_util.merge(mask_util.frPyObjects(o["segmentation"], 30, 40)))
                for o in (old, new)
            ]
            assert np.abs(masks[0].astype(int) - masks[1]).sum() <= 6  # along the way between them


@pytest.mark.parametrize("form", ["yolo", "labelme"])
def test_parts_that_cross_the_border_keep_what_lies_within(coco, tmp_path, capfd, form):
    content = json.loads(json.dumps(COCO))
    squares = [[x, y, x + 6, y, x + 6, y + 6, x, y + 6] for x, y in ((2, 2), (30, 4), (14, 20))]
    bar = [-14, 12, 14, 28, 10, 34, -18, 18]  # slanted, its upper end beyond the left border
    content["annotations"][0].update(bbox=[-18, 2, 54, 32], segmentation=[*squares, bar])
    gone = [41, 31, 50, 31, 50, 40]
    content["annotations"][1].update(bbox=[2, 2, 6, 6], segmentation=[squares[0], gone])
    (tmp_path / "set.json").write_text(json.dumps(content))
    name = convert(capfd, coco, form, tmp_path / form)
    found = [o for r in DatasetCatalog.get(name) for o in r["annotations"]]
    for new, old in zip(found, content["annotations"]):
        whole, expected = (
            mask_util.decode(mask_util.merge(mask_util.frPyObjects(each["segmentation"], 30, 40)))
            for each in (new, old)
        )
        rows, columns = np.nonzero(expected)
        assert np.abs(whole.astype(int) - expected).sum() <= 0.1 * expected.sum()
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(new["bbox"], box, atol=1)


def test_masks_of_labelme_become_run_lengths(tmp_path, capfd):
    folder = tmp_path / "labelme"
    folder.mkdir()
    picture, mask = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(picture, "PNG")
    Image.new("1", (8, 6), 1).save(mask, "PNG")
    picture, mask = (base64.b64encode(file.getvalue()).decode() for file in (picture, mask))
    shape = {"label": "cat", "shape_type": "mask", "points": [[3, 4], [10, 9]], "mask": mask}
    content = {"shapes": [shape], "imagePath": "gone.png", "imageData": picture}
    (folder / "a.json").write_text(json.dumps(content))
    name = convert(capfd, f"labelme:{folder}", "coco", tmp_path / "coco")
    (record,) = DatasetCatalog.get(name)
    (found,) = record["annotations"]
    assert mask_util.area(found["segmentation"]) == 48 and found["bbox"] == [3, 4, 8, 6]


def test_ids_that_are_text_become_numbers(coco, tmp_path, capfd):
    """As other programs that read COCO's format expect."""
    voc = convert(capfd, coco, "voc", tmp_path / "voc")
    convert(capfd, voc, "coco", tmp_path / "again")
    content = json.loads((tmp_path / "again/train.json").read_text())
    assert [image["id"] for image in content["images"]] == [1, 2]
    assert {found["image_id"] for found in content["annotations"]} <= {1, 2}


def test_what_is_lost_is_counted(coco, tmp_path, capfd, caplog):
    convert(capfd, coco, "voc", tmp_path / "voc")
    assert "The outlines of 2 object(s) are lost." in caplog.text


def test_a_second_split_needs_the_same_classes(coco, tmp_path, capfd):
    for form in ("voc", "yolo", "labelme"):
        convert(capfd, coco, form, tmp_path / form)
        convert(capfd, coco, form, tmp_path / form, "--split", "val")
    (tmp_path / "set.json").write_text(json.dumps(COCO).replace("dog", "cow"))
    other = f"{coco}/"  # not read before
    words = "has other classes; write this dataset into another folder"
    for form in ("voc", "yolo", "labelme"):
        refused(capfd, words, other, form, tmp_path / form)


@pytest.mark.parametrize("split", ["", "a:b", ".", "../up"])
def test_a_name_that_no_split_can_have_is_refused(coco, tmp_path, capfd, split):
    told = run_tool(
        load_tool("convert_dataset"), capfd, coco, "voc", tmp_path / "voc", "--split", split
    )
    assert told[0] == 2 and f"{split!r} cannot name a split" in told[2]
    assert not (tmp_path / "voc").exists()


@pytest.mark.parametrize("link", [[], ["--link"]])
def test_no_picture_is_replaced(coco, tmp_path, capfd, link):
    voc = convert(capfd, coco, "voc", tmp_path / "voc", *link)
    convert(capfd, coco, "voc", tmp_path / "voc", *link)  # the same once more
    picture = tmp_path / "voc/JPEGImages/a.jpg"
    if not link:
        refused(capfd, f"{picture} would be replaced", voc, "voc", tmp_path / "voc", "--link")
        assert not picture.is_symlink()
    other = tmp_path / "other"
    (other / "JPEGImages").mkdir(parents=True)
    (other / "JPEGImages/a.jpg").write_bytes(b"of another split")
    words = "a.jpg would be replaced; write this dataset into another folder"
    refused(capfd, words, coco, "voc", other, *link)


@pytest.mark.skipif(not BCCD.exists(), reason="needs ../shared/data/bccd")
def test_blood_cells_through_all_formats(tmp_path, capfd):
    name = first = f"voc:{BCCD}:test"
    for form in ("yolo", "coco", "voc"):
        name = convert(capfd, name, form, tmp_path / form, "--link", "--split", "test")
    assert_same_objects(name, first)


def test_difficult_objects_become_crowds_and_back(tmp_path, capfd):
    kinds = [(0, 2), (1, 5), (0, 7)]
    flag = "<difficult>{}</difficult>"
    objects = "".join(object_xml("cat", (x, 3, 20, 20), flag.format(d)) for d, x in kinds)
    coco = convert(capfd, voc_of(tmp_path / "voc", objects), "coco", tmp_path / "coco")
    assert [o["iscrowd"] for o in DatasetCatalog.get(coco)[0]["annotations"]] == [0, 1, 0]
    back = convert(capfd, coco, "voc", tmp_path / "back")
    assert [o["difficult"] for o in DatasetCatalog.get(back)[0]["annotations"]] == [0, 1, 0]
    found = DatasetCatalog.get(convert(capfd, back, "labelme", tmp_path / "labelme"))
    assert [o.get("difficult", 0) for o in found[0]["annotations"]] == [0, 1, 0]


def test_yolo_has_what_lies_within_the_picture(coco, tmp_path, capfd):
    content = json.loads(json.dumps(COCO))
    outline = [-9, 3, 60, 3, 60, 33]
    content["annotations"][0].update(bbox=[-9, 3, 69, 30], segmentation=[outline])
    content["annotations"][1].update(bbox=[-20, 10, 30, 30], image_id=9)
    (tmp_path / "set.json").write_text(json.dumps(content))
    name = convert(capfd, coco, "yolo", tmp_path / "yolo")
    boxes = [found["bbox"] for r in DatasetCatalog.get(name) for found in r["annotations"]]
    assert boxes[0] == pytest.approx([0, 3, 40, 3 + 30 * 49 / 69])
    del content["annotations"][0], content["annotations"][0]["segmentation"]
    (tmp_path / "set.json").write_text(json.dumps(content))
    name = convert(capfd, f"{coco}/.", "yolo", tmp_path / "boxes")
    boxes = [found["bbox"] for r in DatasetCatalog.get(name) for found in r["annotations"]]
    assert boxes == [pytest.approx([0, 10, 10, 30])]


def test_a_missing_picture_is_told_before_anything_is_written(coco, tmp_path, capfd):
    (tmp_path / "9/a.jpg").unlink()
    refused(capfd, "9/a.jpg does not exist; restore it", coco, "voc", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_full_disk_leaves_no_part_of_a_picture(coco, tmp_path, capfd, monkeypatch):
    def fill(source, target, *_):
        target.write(source.read(100))
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(shutil, "copyfileobj", fill)
        full.setattr(shutil, "copyfile", lambda a, b, **_: fill(open(a, "rb"), open(b, "wb")))
        code, _, err = run_tool(load_tool("convert_dataset"), capfd, coco, "voc", tmp_path / "out")
    assert code == 1 and "a.jpg cannot be written (No space left on device); make room" in err
    assert not list((tmp_path / "out/JPEGImages").iterdir())
    convert(capfd, coco, "voc", tmp_path / "out")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("", None),
        ("names: ['cat', 'dog']\n", None),
        ("names: {0: cat, 1: dog}\npath: .\n", None),
        ("names: [cat, dog]\npath: /data/other\nval: images\n", "/data/other"),
    ],
)
def test_a_data_yaml_that_is_there_is_added_to(coco, tmp_path, capfd, text, path):
    folder = tmp_path / "yolo"
    folder.mkdir()
    (folder / "data.yaml").write_text(text)
    name = convert(capfd, coco, "yolo", folder)
    content = yaml.safe_load((folder / "data.yaml").read_text())
    # As Ultralytics does: a relative path would be one of the working directory.
    assert content.get("path") == path
    place = Path(content.get("path") or folder) / content["train"]
    assert place == folder / "images/train" and len(DatasetCatalog.get(name)) == 2
    assert content.get("val") == ("images" if path else None)
