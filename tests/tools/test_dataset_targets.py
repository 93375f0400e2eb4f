"""What convert_dataset.py finds in its folder: nothing is replaced, and no two sets become one."""

import json
import os

import pytest
from conversions import BOX, FORMS, convert, refused, voc_of, yolo_of
from detectron2.data import DatasetCatalog

from ion_d2.data import class_names

pytestmark = pytest.mark.usefixtures("catalogs")

OTHER_BOX = "0 .3 .3 .4 .4"


@pytest.mark.parametrize("lines", [[BOX], []])
def test_pictures_of_two_splits_do_not_share_labels(tmp_path, capfd, lines):
    train = yolo_of(tmp_path / "tr", ["cat"], BOX, pictures=["i.jpg"])
    test = yolo_of(tmp_path / "te", ["cat"], *lines, pictures=["i.png"])
    convert(capfd, train, "voc", tmp_path / "voc", "--split", "train")
    words = "JPEGImages/i.jpg, which is there, would have the same labels; write this dataset into"
    refused(capfd, words, test, "voc", tmp_path / "voc", "--split", "test")
    convert(capfd, train, "yolo", tmp_path / "yolo")
    refused(capfd, "images/train/i.jpg, which is there", test, "yolo", tmp_path / "yolo")
    convert(capfd, test, "yolo", tmp_path / "yolo", "--split", "test")


@pytest.mark.parametrize("form", FORMS)
def test_corrected_labels_are_not_replaced(tmp_path, capfd, form):
    pictures = ["a.jpg", "b.jpg"]
    source = yolo_of(tmp_path / "source", ["cat"], BOX, pictures=pictures)
    folder = tmp_path / "converted"
    name = convert(capfd, source, form, folder)
    (first, *_) = DatasetCatalog.get(name)
    path = {
        "voc": folder / "Annotations/b.xml",
        "coco": folder / "train.json",
        "yolo": folder / "labels/train/b.txt",
        "labelme": folder / "train/b.json",
    }[form]
    path.write_text(path.read_text() + "\n")
    (folder / "train" / "a.json").unlink(missing_ok=True)  # would be written first
    refused(capfd, f"{path} would be replaced; write this dataset into", source, form, folder)
    assert first["annotations"]


@pytest.mark.parametrize("form", FORMS)
def test_another_dataset_does_not_join_or_replace_a_split(tmp_path, capfd, form):
    first = yolo_of(tmp_path / "first", ["cat"], BOX, pictures=["a.jpg"])
    second = yolo_of(tmp_path / "second", ["cat"], OTHER_BOX, pictures=["b.jpg"])
    folder = tmp_path / "converted"
    name = convert(capfd, first, form, folder)
    words = {"yolo": "a.jpg is there and of no picture of this dataset; choose another --split",
             "labelme": "a.json is there and of no picture"}  # fmt: skip
    refused(capfd, words.get(form, "would be replaced"), second, form, folder)
    assert len(DatasetCatalog.get(name)) == 1
    assert len(DatasetCatalog.get(convert(capfd, second, form, folder, "--split", "val"))) == 1


@pytest.mark.parametrize("form", ["voc", "yolo", "labelme"])
def test_a_dataset_that_has_grown_is_added_to(tmp_path, capfd, form):
    names = ["a.jpg", "b.jpg", "c.jpg"]
    small = yolo_of(tmp_path / "1" / "set", ["cat"], BOX, pictures=names[:2])
    large = yolo_of(tmp_path / "2" / "set", ["cat"], BOX, pictures=names)
    DatasetCatalog.remove(convert(capfd, small, form, tmp_path / "converted"))
    name = convert(capfd, large, form, tmp_path / "converted")
    records = DatasetCatalog.get(name)
    assert sorted(os.path.basename(record["file_name"]) for record in records) == names
    assert all(len(record["annotations"]) == 1 for record in records)
    if form == "voc":  # a list that names more is another's
        refused(capfd, "train.txt would be replaced", small, form, tmp_path / "converted")


def test_a_list_of_classes_by_hand_is_kept(tmp_path, capfd):
    source, folder = voc_of(tmp_path / "source", ""), tmp_path / "new"
    folder.mkdir()
    (folder / "classes.txt").write_text("# of my cats\r\ncat\r\n")
    name = convert(capfd, source, "voc", folder)
    assert class_names([name]) == ["cat"]
    assert (folder / "classes.txt").read_bytes().startswith(b"# of my cats\r\n")


@pytest.mark.parametrize("split", ["path", "names", "nc", "kpt_shape"])
def test_a_split_is_no_other_key_of_yolo(tmp_path, capfd, split):
    words = f"data.yaml has another use for '{split}'; choose another --split"
    source = voc_of(tmp_path / "source", "")
    refused(capfd, words, source, "yolo", tmp_path / "new", "--split", split)


def test_a_split_of_yolo_that_lies_elsewhere_stays(tmp_path, capfd):
    source, folder = voc_of(tmp_path / "source", ""), tmp_path / "new"
    folder.mkdir()
    (folder / "data.yaml").write_text("names: [cat]\ntrain: ../train/images\n")
    words = "has another split 'train', ../train/images; choose another --split"
    refused(capfd, words, source, "yolo", folder)
    (folder / "data.yaml").write_text("names: [cat]\ntrain: ./images/train\n")
    convert(capfd, source, "yolo", folder)


def test_detections_that_were_corrected_stay(tmp_path, capfd):
    source = yolo_of(tmp_path / "source", ["cat"], BOX)
    (record,) = DatasetCatalog.get(convert(capfd, source, "voc", tmp_path / "voc"))
    found = {"class": "cat", "class_id": 0, "score": 0.9, "box": [1, 2, 30, 20]}
    picture = {"file": record["file_name"], "width": 40, "height": 30, "detections": [found]}
    (tmp_path / "d.json").write_text(json.dumps([picture]))
    (tmp_path / "d.classes.txt").write_text("cat\n")
    command = (f"detections:{tmp_path}/d.json", "labelme", tmp_path / "to_correct")
    convert(capfd, *command)
    path = tmp_path / "to_correct/train/a.json"
    content = json.loads(path.read_text())
    content["shapes"] *= 2
    path.write_text(json.dumps(content))
    refused(capfd, "a.json would be replaced", *command)
