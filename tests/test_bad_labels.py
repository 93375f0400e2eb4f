"""Some sixty kinds of bad labels and pictures, each through a program's front door.

Each ends with status 1 and one sentence that names what is wrong, and what was there stays.
"""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
import yaml
from cli_helpers import arguments, load_tool, run_tool, voc_arguments
from coco_json import TWO, write_coco
from hostile_pictures import png
from PIL import Image
from refusal_helpers import refused, text
from voc_folder import annotation_xml, object_xml, write_voc

pytestmark = pytest.mark.usefixtures("catalogs")

BOX = (3, 4, 30, 25)


def gone(name):
    def change(folder):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def xml(*objects, size=(40, 30)):
    return text("Annotations/a.xml", annotation_xml(objects, size))


def pipe(name):
    def change(folder):
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return change


SPLIT = "ImageSets/Main/trainval.txt"
CAT = object_xml("cat", BOX)
VOC = {
    "no folder of pictures": (gone("JPEGImages"), "JPEGImages cannot be read"),
    "no list": (gone(SPLIT), "There is no split file"),
    "an empty list": (text(SPLIT, "\n"), "trainval.txt names no image"),
    "a list of comments": (text(SPLIT, "# a\n"), "holds comments only"),
    "a picture that is not there": (text(SPLIT, "a\nb\n"), "has no picture b"),
    "a list that climbs": (text(SPLIT, "../../secret\n"), "has no picture ../../secret"),
    "a picture twice": (text(SPLIT, "a\na\n"), "names image 'a' more than once"),
    "a list in UTF-16": (text(SPLIT, "a\n".encode("utf-16")), "cannot be read as UTF-8"),
    "XML that breaks off": (text("Annotations/a.xml", "<annotation><ob"), "not well-formed XML"),
    "XML of something else": (text("Annotations/a.xml", "<html/>"), "begins with <html>"),
    "XML with entities": (
        text("Annotations/a.xml", '<!DOCTYPE x [<!ENTITY a "b">]><annotation/>'),
        "a.xml declares XML entities",
    ),
    "an object without a name": (xml(object_xml("", BOX)), "without a <name>"),
    "an object without a box": (xml("<object><name>cat</name></object>"), "has no <bndbox>"),
    "a corner in words": (xml(object_xml("cat", ("one", 4, 30, 25))), "<xmin> is 'one'"),
    "a corner without an end": (xml(object_xml("cat", (3, 4, "inf", 25))), "<xmax> is 'inf'"),
    "a flag that is none": (
        xml(object_xml("cat", BOX, "<difficult>maybe</difficult>")),
        "<difficult> is 'maybe'",
    ),
    "a class that is not listed": (xml(object_xml("dog", BOX)), "class 'dog', but the classes are"),
    "a picture of another size": (xml(CAT, size=(50, 30)), "annotation says 50x30"),
    "no class": (text("classes.txt", "# none\n"), "classes.txt names no class"),
    "a class twice": (text("classes.txt", "cat\ncat\n"), "names cat more than once"),
    "text as a picture": (text("JPEGImages/a.jpg", "hello"), "a.jpg cannot be decoded"),
    "nothing as a picture": (text("JPEGImages/a.jpg", b""), "a.jpg cannot be decoded"),
    "a program as a picture": (
        text("JPEGImages/a.jpg", "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 30\n"),
        "in the format EPS are not read",
    ),
    "a picture of 16 bits": (
        lambda folder: Image.fromarray(np.ones((30, 40), np.uint16)).save(
            folder / "JPEGImages/a.jpg", "PNG"
        ),
        "more than 8 bits a channel",
    ),
    "a bomb as a picture": (
        text("JPEGImages/a.jpg", png(size=(60_000, 60_000))),
        "decompression bomb",
    ),
    "a pipe as a picture": (pipe("JPEGImages/a.jpg"), "it is not a file"),
}


def edit(part, **changes):
    """Changes the first entry of a part of the COCO file; None removes a key."""

    def change(folder):
        content = json.loads((folder / "all.json").read_text())
        entry = content[part][0]
        entry.update(changes)
        (folder / "all.json").write_text(json.dumps(content))

    return change


def whole(**changes):
    def change(folder):
        content = json.loads((folder / "all.json").read_text())
        content.update(changes)
        (folder / "all.json").write_text(json.dumps(content))

    return change


COCO = {
    "no JSON": (text("all.json", "{"), "all.json cannot be read as JSON"),
    "JSON without an end of depth": (text("all.json", "[" * 10**6), "cannot be read as JSON"),
    "no categories": (whole(categories=None), "no list 'categories'"),
    "categories without one": (whole(categories=[]), "'categories' is empty"),
    "no images": (whole(images=7), "no list 'images'"),
    "annotations of words": (whole(annotations=["a"]), "annotations[0] is of the type str"),
    "an id twice": (edit("images", id=2), "has the id 2"),
    "ids of two kinds": (edit("categories", id="x"), "as numbers, or all as text"),
    "a picture without a width": (edit("images", width=0), "has the width 0"),
    "a name of a picture in lines": (edit("images", file_name="a\nb"), "picture on one line"),
    "a name of a class in lines": (edit("categories", name="a\nb"), "visible characters"),
    "a box of three numbers": (edit("annotations", bbox=[1, 2, 3]), "bbox [1, 2, 3]"),
    "a box that is not a number": (edit("annotations", bbox=[1, 2, 3, float("nan")]), "bbox"),
    "a box of a huge number": (edit("annotations", bbox=[1, 2, 3, 10**400]), "bbox"),
    "a class that is not there": (edit("annotations", category_id=99), "category_id 99"),
    "an image that is not there": (edit("annotations", image_id=99), "image_id 99"),
    "a mask of another size": (
        edit("annotations", segmentation={"size": [9, 9], "counts": [81]}),
        "have the size [9, 9]",
    ),
    "a mask of words": (edit("annotations", segmentation=[["a"] * 6]), "a list of numbers"),
    "keypoints of two numbers": (edit("annotations", keypoints=[1, 2]), "keypoints [1, 2]"),
    "a device as a picture": (edit("images", file_name="/dev/null"), "it is not a file"),
}

YOLO = {
    "no YAML": (text("data.yaml", "names: [a"), "cannot be read as YAML"),
    "YAML that runs code": (
        text("data.yaml", "names: !!python/object/apply:os.getcwd []"),
        "asks for more than plain values",
    ),
    "no names": (text("data.yaml", "train: images\n"), "has no 'names'"),
    "no split": (text("data.yaml", "names: [cat]\n"), "has no split 'train'"),
    "a device as a list": (
        text("data.yaml", "names: [cat]\ntrain: /dev/zero\n"),
        "/dev/zero is no folder or file",
    ),
    "a line of three numbers": (text("labels/a.txt", "0 .1 .1 .1"), "has 3 numbers"),
    "a line of words": (
        text("labels/a.txt", "cat .5 .5 .1 .1"),
        "must be the number of a class and then numbers",
    ),
    "a class beyond the names": (text("labels/a.txt", "9 .5 .5 .1 .1"), "has the class 9"),
    "a place in pixels": (text("labels/a.txt", "0 20 15 9 9"), "shares of the picture's width"),
}

LABELME = {
    "no JSON at all": (text("a.json", "shapes"), "cannot be read as JSON"),
    "no shapes": (text("a.json", "{}"), "no list of 'shapes'"),
    "no picture": (text("a.json", '{"shapes": [], "imagePath": "b.png"}'), "is not there"),
    "a shape of one point": (
        text("a.json", '{"shapes": [{"label": "cat", "points": [[1, 2]]}], "imagePath": "a.png"}'),
        "shape 1 has not the 3 or more 'points'",
    ),
}


@pytest.mark.parametrize("kind", VOC)
def test_a_folder_in_vocs_layout(train_net, tmp_path, kind):
    change, words = VOC[kind]
    root = write_voc(tmp_path / "VOC", {"a": [CAT]}, split="trainval")
    (root / "classes.txt").write_text("cat\n")
    (root / "ImageSets/Main/test.txt").write_text("a\n")
    change(root)
    args = voc_arguments(root, tmp_path / "out")
    refused(tmp_path, lambda: train_net(*args), words)


@pytest.mark.parametrize("kind", COCO)
def test_a_file_in_cocos_format(train_net, tmp_path, kind):
    change, words = COCO[kind]
    name = write_coco(tmp_path, *TWO)
    change(tmp_path)
    args = arguments(name, name, tmp_path / "out")
    refused(tmp_path, lambda: train_net(*args), words)


@pytest.mark.parametrize("kind", YOLO)
def test_a_folder_in_yolos_layout(train_net, tmp_path, kind):
    change, words = YOLO[kind]
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "images" / "a.png")
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({"names": ["cat"], "train": "images"}))
    change(tmp_path)
    name = f"yolo:{tmp_path}/data.yaml:train"
    args = arguments(name, name, tmp_path / "out")
    refused(tmp_path, lambda: train_net(*args), words)


@pytest.mark.parametrize("kind", LABELME)
def test_a_folder_of_labelmes_files(capfd, tmp_path, kind):
    change, words = LABELME[kind]
    source = tmp_path / "source"
    source.mkdir()
    Image.new("RGB", (40, 30)).save(source / "a.png")
    (source / "classes.txt").write_text("cat\n")
    change(source)
    tool = load_tool("convert_dataset")
    args = (tool, capfd, f"labelme:{source}", "voc", tmp_path / "out")
    refused(tmp_path, lambda: run_tool(*args), words)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"model_final.pth"}
