"""convert_dataset.py: the new labels are those of the picture, and every reader finds them."""

import base64
import json

import numpy as np
import pytest
from conversions import BOX, COCO, FORMS, convert, refused, voc_of, write_small_coco, yolo_of
from detectron2.data import DatasetCatalog
from PIL import Image

from ion_d2.data import class_names

pytestmark = pytest.mark.usefixtures("catalogs")

CAT = "<object><name>cat</name><bndbox><xmin>{}</xmin><ymin>3</ymin><xmax>20</xmax><ymax>9</ymax>"
CAT += "</bndbox></object>"


@pytest.mark.parametrize("options", [(), ("--short-side", "15")])
@pytest.mark.parametrize("form", FORMS)
def test_labels_of_another_size_are_refused(tmp_path, capfd, form, options):
    """As from a program that does not turn pictures by EXIF."""
    turned = Image.Exif()
    turned[274] = 6
    source = voc_of(tmp_path / "source", CAT.format(2))
    Image.new("RGB", (40, 30)).save(tmp_path / "source/JPEGImages/f1.jpg", exif=turned)
    words = "f1.jpg is 30x40 pixels (turned as its EXIF data asks), but its annotation"
    if form == "coco" and options:
        words = "--short-side is not for COCO"
    refused(capfd, words, source, form, tmp_path / "new", *options)
    assert not (tmp_path / "new").exists()


def test_pictures_that_cannot_become_smaller_are_told_first(tmp_path, capfd):
    source = yolo_of(tmp_path / "deep", ["cat"], BOX, pictures=["a.png"])
    picture = tmp_path / "deep/images/a.png"
    Image.fromarray(np.full((30, 40), 999, np.uint16)).save(picture)
    command = "voc", tmp_path / "new"
    told = "a.png has more than 8 bits a channel"
    assert "SKIP_UNREADABLE" not in refused(capfd, told, source, *command, "--short-side", "15")
    convert(capfd, source, "voc", tmp_path / "as_it_is")
    source = voc_of(tmp_path / "empty", CAT.format(2))
    (tmp_path / "empty/JPEGImages/f1.jpg").write_bytes(b"")
    err = refused(capfd, "f1.jpg cannot be decoded", source, *command)
    assert "SKIP_UNREADABLE" not in err and not (tmp_path / "new").exists()


def test_a_file_of_yolo_has_outlines_or_boxes(tmp_path, capfd):
    """As Ultralytics reads it: one line of more than 5 numbers makes all lines corners."""
    coco, content = write_small_coco(tmp_path), json.loads(json.dumps(COCO))
    content["annotations"][0].update(bbox=[20, 10, 16, 15], segmentation=[])
    mask = {"size": [30, 40], "counts": [600, 600]}
    shared = content["annotations"][0]
    content["annotations"] += [
        {**shared, "id": 3, "segmentation": mask, "bbox": [20, 0, 20, 30]},
        {**shared, "id": 4, "image_id": 9, "bbox": [10, 6, 20, 12]},
    ]
    (tmp_path / "set.json").write_text(json.dumps(content))
    convert(capfd, coco, "yolo", tmp_path / "yolo")
    files = sorted((tmp_path / "yolo/labels/train").iterdir())
    mixed, boxes = ([line.split()[1:] for line in open(path)] for path in files)
    corners = [np.array(line, float).reshape(-1, 2) * (40, 30) for line in mixed]
    assert [[*c.min(axis=0), *c.max(axis=0)] for c in corners] == [
        pytest.approx(box) for box in ([20, 10, 36, 25], [0, 0, 40, 30], [20, 0, 40, 30])
    ]
    assert [list(map(float, line)) for line in boxes] == [[0.5, 0.4, 0.5, 0.4]]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("names", [["background", "cat"], ["#1 bolt", "nut"]])
def test_every_class_name_survives(tmp_path, capfd, form, names):
    source = yolo_of(tmp_path / "source", names, BOX, "1 .3 .3 .4 .4")
    name = convert(capfd, source, form, tmp_path / "new")
    name = convert(capfd, source, form, tmp_path / "new")  # the same once more
    assert class_names([name]) == names
    (record,) = DatasetCatalog.get(name)
    assert [found["category_id"] for found in record["annotations"]] == [0, 1]


@pytest.mark.parametrize("form", FORMS)
def test_a_set_without_an_object_stays_labeled(tmp_path, capfd, form):
    name = convert(capfd, voc_of(tmp_path / "source"), form, tmp_path / "new")
    assert [record["annotations"] for record in DatasetCatalog.get(name)] == [[]]


@pytest.mark.parametrize("form", FORMS)
def test_a_name_that_is_cut_stays_visible(tmp_path, capfd, form):
    pictures = [f"{'x' * 20}.{'y' * 59}.jpg", "ok.jpg"]
    source = yolo_of(tmp_path / "source", ["cat"], BOX, pictures=pictures)
    records = DatasetCatalog.get(convert(capfd, source, form, tmp_path / "new"))
    assert [len(record["annotations"]) for record in records] == [1, 1]


def test_a_picture_inside_labels_keeps_their_name(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("ion_d2.data.labelme.get_cache_dir", lambda: str(tmp_path / "cache"))
    Image.new("RGB", (40, 30)).save(tmp_path / "p.png")
    data = base64.b64encode((tmp_path / "p.png").read_bytes()).decode()
    shape = {"label": "cat", "shape_type": "rectangle", "points": [[2, 3], [9, 9]]}
    content = {"shapes": [shape], "imagePath": "gone.png", "imageData": data}
    (tmp_path / "labels").mkdir()
    for name in ("my name.1", "other"):  # of the same picture
        (tmp_path / f"labels/{name}.json").write_text(json.dumps(content))
    convert(capfd, f"labelme:{tmp_path}/labels", "voc", tmp_path / "new")
    names = sorted(path.name for path in (tmp_path / "new/JPEGImages").iterdir())
    assert names == ["my_name.1.png", "other.png"]


def test_boxes_that_vocs_format_cannot_hold_are_counted(tmp_path, capfd, caplog):
    lines = [BOX, "0 .5 .5 .025 .2", "0 .5 .5 .2 .01", "0 .5 .5 .05 .5"]  # the last: 2 pixels wide
    source = yolo_of(tmp_path / "source", ["cat"], *lines)
    convert(capfd, source, "coco", tmp_path / "coco")
    assert "at most a pixel" not in caplog.text
    for folder, count, options in (("voc", 2, ()), ("small", 3, ("--short-side", "15"))):
        caplog.clear()
        name = convert(capfd, source, "voc", tmp_path / folder, *options)
        assert f"{count} box(es), at most a pixel wide or high, are left out" in caplog.text
        (record,) = DatasetCatalog.get(name)
        assert len(record["annotations"]) == 4 - count
