"""Readers that go on after a fault: each is noted, the rest is read, boxes stay as they are."""

import json

import pytest
from coco_json import RED, TWO, change_file, every, write_coco
from detectron2.data import DatasetCatalog, MetadataCatalog
from refusals import refused
from voc_folder import annotation_xml, object_xml, write_image, write_split, write_voc

from ion_d2.data import ensure_registered
from ion_d2.data.reading_on import is_reading_on, read_each, reading_on
from ion_d2.errors import IONError

pytestmark = pytest.mark.usefixtures("catalogs")

GOOD = object_xml("cat", (2, 3, 20, 20))


def voc(folder):
    images = {name: [GOOD] for name in ("a", "broken", "unlabeled", "odd")}
    images["odd"] = [GOOD, object_xml("cat", (9, 9, "x", 20)), object_xml("cat", (30, 20, 60, 10))]
    root = write_voc(folder / "VOC", images)
    (root / "Annotations/broken.xml").write_text("<annotation>")
    (root / "Annotations/unlabeled.xml").unlink()
    (root / "Annotations/z.xml").write_text(
        annotation_xml([GOOD, "<object><name>cow</name></object>"])
    )
    write_split(root, "train", "a\nbroken\nunlabeled\nodd\ngone\na\n")
    return f"voc:{root}:train"


def coco(folder):
    name = write_coco(folder, *TWO)

    def spoil(content):
        content["images"].append({"id": 3, "file_name": "3.png", "width": 0, "height": 4})
        content["annotations"][1].update(category_id=99)
        extra = {"id": 9, "image_id": 1, "category_id": RED[0], "bbox": [90, 60, -20, 30]}
        content["annotations"] += [extra, {**extra, "bbox": [200, 200, 5, 5]}, {"id": 10}]

    change_file(name, spoil)
    return name


def yolo(folder):
    for place in ("images", "labels"):
        (folder / place).mkdir()
    for name in ("a", "b"):
        write_image(folder / f"images/{name}.jpg")
    (folder / "images/c.jpg").write_text("no picture")
    (folder / "data.yaml").write_text("train: images\nnames: [cat]")
    lines = ["0 0.5 0.5 0.2 0.2", "0 0.5 0.5 0.2 0.2", "1 .5 .5 .1 .1", "0 .9 .5 .4 .2", "0 2"]
    (folder / "labels/a.txt").write_text("\n".join(lines))
    (folder / "labels/b.txt").write_bytes(b"\xff\xfe")
    return f"yolo:{folder}/data.yaml:train"


def labelme(folder):
    box = {"label": "cat", "shape_type": "rectangle", "points": [[-9, 3], [20, 20]]}
    shapes = {"a": [box, {**box, "label": "cow"}, {**box, "points": []}], "gone": [box], "b": None}
    (folder / "classes.txt").write_text("cat")
    write_image(folder / "a.jpg")
    for name, listed in shapes.items():
        content = {"shapes": listed, "imagePath": f"{name}.jpg"}
        (folder / f"{name}.json").write_text(json.dumps(content))
    return f"labelme:{folder}"


# What is refused, by rule; and the boxes that are read, as they stand in the files.
EXPECTED = {
    voc: (
        ["missing-picture", "listed-twice", "", "", ""],
        [[1, 2, 20, 20], [1, 2, 20, 20], [29, 19, 60, 10]],
    ),
    coco: (
        ["", "", ""],
        [[5, 4, 40, 40], [90, 60, -20, 30], [200, 200, 5, 5], [30, 8, 50, 50], [40, 20, 11, 11]],
    ),
    yolo: (
        ["broken-picture", "unknown-class", "", ""],
        [[16, 12, 24, 18], [16, 12, 24, 18], [28, 12, 44, 18]],
    ),
    labelme: (["missing-picture", "unknown-class", "", ""], [[-9, 3, 20, 20]]),
}


@pytest.mark.parametrize("write", EXPECTED, ids=lambda write: write.__name__)
def test_all_faults_are_noted_and_the_rest_is_read(tmp_path, write):
    name = write(tmp_path)
    with reading_on() as noted:
        ensure_registered([name])
        records = DatasetCatalog.get(name)
    rules, boxes = EXPECTED[write]
    sentences = {str(error): error.rule for error in noted}
    assert sorted(sentences.values()) == sorted(rules), sentences
    read = [found["bbox"] for record in records for found in record.get("annotations", ())]
    assert [pytest.approx(box) for box in boxes] == read
    assert not is_reading_on()
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)
    with refused(next(iter(sentences))):  # the first of them, and no other, stops a training
        ensure_registered([name])
        DatasetCatalog.get(name)


def test_dicts_of_a_function_are_read_on_one_by_one(tmp_path):
    picture = {"file_name": str(write_image(tmp_path / "a.png")), "annotations": []}
    wrong = {**picture, "annotations": [{"bbox": [1, 2, 3, 4], "bbox_mode": 0, "category_id": 7}]}
    dicts = [picture, {}, wrong, {**picture, "annotations": None}, picture]
    DatasetCatalog.register("mine", lambda: dicts)
    MetadataCatalog.get("mine").set(thing_classes=["cat"])
    with reading_on() as noted:
        ensure_registered(["mine"])
        records = DatasetCatalog.get("mine")
    assert [record["image_id"] for record in records] == [0, 2, 4]
    for error, words in zip(noted, ("entry 1 is not a dict", "category_id 7", "annotations None")):
        assert words in str(error)


def test_a_first_object_with_broken_keypoints_does_not_count_for_the_others(tmp_path):
    coco = write_coco(tmp_path, *TWO)
    points = every("annotations", keypoints=lambda _, i: [1, 2, 2][i == 0 :], category_id=RED[0])
    change_file(coco, points)
    with reading_on() as noted:
        ensure_registered([coco])
        DatasetCatalog.get(coco)
    assert ["annotation id 1" in str(error) for error in noted] == [True]


def test_what_is_no_fault_of_the_data_is_raised():
    def read(item):
        raise item

    with reading_on() as noted, pytest.raises(KeyError):
        read_each([IONError("a"), KeyError("b"), IONError("c")], read)
    assert [str(error) for error in noted] == ["a"]
    with refused("a"):
        read_each([IONError("a")], read)
