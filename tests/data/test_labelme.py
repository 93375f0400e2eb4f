"""labelme's files: shapes, groups, masks and pictures inside, and what is refused."""

import base64
import io
import json
import os
import unicodedata

import numpy as np
import pycocotools.mask as mask_util
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from refusals import refused
from voc_folder import write_image

from ion_d2.data import labelme, read_image
from ion_d2.data.catalog import ensure_registered, evaluator_type
from ion_d2.data.readable import read_image_of

pytestmark = pytest.mark.usefixtures("catalogs")


def shape(label, kind, *points, **more):
    return {"label": label, "points": [list(p) for p in points], "group_id": None,
            "shape_type": kind, "flags": {}, **more}  # fmt: skip


RECTANGLE = shape("dog", "rectangle", (24, 21), (16, 9))  # drawn from its last corner
TRIANGLE = shape("cat", "polygon", (10, 6), (20, 6), (20, 18))


@pytest.fixture
def folder(tmp_path):
    write_image(tmp_path / "a.jpg", (40, 30))
    return tmp_path


def write(folder, *shapes, name="a.json", **changes):
    content = {"version": "5.5.0", "flags": {}, "shapes": list(shapes), "imagePath": "a.jpg",
               "imageData": None, "imageHeight": 30, "imageWidth": 40, **changes}  # fmt: skip
    (folder / name).write_text(json.dumps(content))


def load(folder):
    name = f"labelme:{folder}"
    ensure_registered([name])
    return name, DatasetCatalog.get(name)


def png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def test_boxes(folder):
    write(folder, RECTANGLE, shape("__ignore__", "polygon", (0, 0), (1, 0), (1, 1)))
    name, (record,) = load(folder)
    assert MetadataCatalog.get(name).thing_classes == ["dog"]
    assert (record["file_name"], record["height"]) == (str(folder / "a.jpg"), 30)
    (found,) = record["annotations"]
    assert found["bbox"] == [16, 9, 24, 21] and "segmentation" not in found
    assert evaluator_type(name) == "pascal_voc"


def test_the_size_is_that_of_the_labels(folder):
    """A picture that was scaled since is noticed, as it is with other formats."""
    write(folder, RECTANGLE)
    write_image(folder / "a.jpg", (20, 15))
    (record,) = load(folder)[1]
    assert (record["width"], record["height"]) == (40, 30)
    with refused("a.jpg", "is 20x15 pixels", "says 40x30"):
        read_image_of(record)
    mask = shape("dog", "mask", (1, 2), (3, 4), mask=MASK)
    for wrong in ({"imageHeight": None}, {"imageWidth": 0}, {"imageWidth": 2**40}):
        write(folder, RECTANGLE, mask, **wrong)
        (record,) = load(folder)[1]
        assert (record["width"], record["height"]) == (20, 15)


def test_a_picture_is_found_under_other_spellings_and_beside_the_file(folder):
    (folder / "pictures").mkdir()
    write_image(folder / "pictures" / unicodedata.normalize("NFD", "Käfer.jpg"), (40, 30))
    write(folder, RECTANGLE, imagePath="pictures\\Käfer.jpg")
    write(folder, RECTANGLE, name="b.json", imagePath="C:\\Users\\me\\a.jpg")
    first, second = load(folder)[1]
    assert os.path.samefile(first["file_name"], next((folder / "pictures").iterdir()))
    assert second["file_name"] == str(folder / "a.jpg")


@pytest.mark.parametrize("kind", ["oriented_rectangle", "rotation", "quadrilateral"])
def test_turned_rectangles_are_outlines(folder, caplog, kind):
    corners = (20, 5), (30, 15), (20, 25), (10, 15)
    write(folder, shape("cat", kind, *corners), shape("wire", "linestrip", (0, 0), (5, 5)))
    name, (record,) = load(folder)
    (found,) = record["annotations"]
    assert found["bbox"] == [10, 5, 30, 25]
    assert found["segmentation"] == [[20, 5, 30, 15, 20, 25, 10, 15]]
    assert MetadataCatalog.get(name).thing_classes == ["cat"]
    assert "Left out 1 shape(s) of the kind(s) linestrip" in caplog.text
    write(folder, shape("cat", kind, *corners[:3]))
    with refused("shape 1 has not the 4 or more 'points' of its kind"):
        load(folder)


def test_what_a_turned_rectangle_has_within_the_picture(folder):
    corners = (-20, 10), (20, 50), (15, 55), (-25, 15)  # it crosses the left and the lower border
    write(folder, shape("cat", "rotation", *((x, y - 18) for x, y in corners)))
    (found,) = load(folder)[1][0]["annotations"]
    # Its sides are the lines y = x + 12 and y = x + 22.
    assert found["bbox"] == pytest.approx([0, 12, 18, 30])
    ((x, y),) = (np.reshape(part, (-1, 2)).T for part in found["segmentation"])
    assert found["cut"] and {*(y - x).round(6)} <= {12, 22, 30, *(30 - x)}
    area = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
    assert area == pytest.approx((18**2 - 8**2) / 2)


def test_outlines_circles_and_groups(folder, caplog):
    second = shape("cat", "polygon", (30, 6), (39, 6), (45, 18), group_id=3)
    circle = shape("cat", "circle", (20, 15), (23, 19))  # a center and a point of the edge
    line = shape("wire", "line", (0, 0), (5, 5))
    write(folder, {**TRIANGLE, "group_id": 3}, RECTANGLE, second, circle, line)
    name, (record,) = load(folder)
    assert MetadataCatalog.get(name).thing_classes == ["cat", "dog"]
    group, box, round_one = record["annotations"]
    # Clipped to the picture, which is 40 pixels wide.
    first, second = group["segmentation"]
    assert first == [10, 6, 20, 6, 20, 18]
    assert second == pytest.approx([30, 6, 39, 6, 40, 8, 40, 14])
    assert group["bbox"] == [10, 6, 40, 18]
    assert box["segmentation"] == [[16, 9, 24, 9, 24, 21, 16, 21]]
    assert round_one["bbox"] == pytest.approx([15, 10, 25, 20])
    area = mask_util.area(mask_util.frPyObjects(round_one["segmentation"], 30, 40))[0]
    assert area == pytest.approx(np.pi * 25, rel=0.1)
    assert evaluator_type(name) == "coco"
    assert "Left out 1 shape(s) of the kind(s) line," in caplog.text


@pytest.mark.parametrize("off", [0, 0.4, -0.4])
def test_masks(folder, off):
    stored = np.zeros((6, 8), dtype=np.uint8)
    stored[2:4, 1:5] = 1
    mask = base64.b64encode(png(stored.astype(bool))).decode()
    write(folder, shape("cat", "mask", (10 + off, 5 + off), (17 + off, 10 + off), mask=mask))
    (found,) = load(folder)[1][0]["annotations"]
    assert found["bbox"] == [10, 5, 18, 11]
    whole = mask_util.decode(found["segmentation"])
    expected = np.zeros((30, 40), dtype=np.uint8)
    expected[7:9, 11:15] = 1
    assert (whole == expected).all()


def test_a_mask_that_begins_outside_the_picture_is_cut(folder):
    mask = base64.b64encode(png(np.ones((10, 10), dtype=bool))).decode()
    write(folder, shape("cat", "mask", (-3, -2), (6, 7), mask=mask))
    (found,) = load(folder)[1][0]["annotations"]
    assert found["bbox"] == [0, 0, 7, 8]
    expected = np.zeros((30, 40), dtype=np.uint8)
    expected[:8, :7] = 1
    assert (mask_util.decode(found["segmentation"]) == expected).all()


def test_a_picture_inside(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("ion_d2.data.labelme.get_cache_dir", lambda: str(tmp_path / "cache"))
    pixels = np.arange(40 * 30 * 3, dtype=np.uint8).reshape(30, 40, 3)
    data = base64.b64encode(png(pixels)).decode()
    write(folder, TRIANGLE, name="b.json", imagePath="..\\gone.png", imageData=data)
    (record,) = load(folder)[1]
    assert (read_image(record["file_name"], "RGB") == pixels).all()
    (folder / "b.json").rename(folder / f"{'b' * 250}.json")  # the longest that there may be
    (record,) = load(f"{folder}/.")[1]
    assert os.path.basename(record["file_name"]) == f"{'b' * 250}.png"


def test_processes_that_take_a_picture_out_do_not_meet(folder, tmp_path, monkeypatch):
    """Another process stops half-way, at each moment in turn."""
    cache = tmp_path / "cache"
    monkeypatch.setattr("ion_d2.data.labelme.get_cache_dir", lambda: str(cache))
    data = base64.b64encode(png(np.zeros((30, 40), np.uint8))).decode()
    write(folder, TRIANGLE, name="b.json", imagePath="gone.png", imageData=data)
    replace, written = os.replace, []

    def other_first(source, target):
        written.append(source)
        if len(written) == 1:
            with monkeypatch.context() as other:
                other.setattr(os, "getpid", lambda: 1)
                labelme._picture({"imageData": data}, "b.json")
        replace(source, target)

    monkeypatch.setattr(os, "replace", other_first)
    (record,) = load(folder)[1]
    assert read_image(record["file_name"]).shape == (30, 40)
    assert [path.name for path in cache.rglob("*") if path.is_file()] == ["b.png"]


def test_classes_of_a_file(folder):
    (folder / "classes.txt").write_text("__ignore__\n_background_\ndog\ncat\n")  # labelme's own
    write(folder, TRIANGLE)
    name, (record,) = load(folder)
    assert record["image_id"] == "a.json"
    assert MetadataCatalog.get(name).thing_classes == ["dog", "cat"]
    assert record["annotations"][0]["category_id"] == 1
    write(folder, shape("cow", *("polygon", (0, 0), (9, 0), (9, 9))))
    with refused("a.json", "has the label 'cow', which classes.txt does not name"):
        DatasetCatalog.get(name)


MASK = base64.b64encode(png(np.ones((3, 3), bool))).decode()
WRONG = {
    "has no 'label'": {"shapes": [{"points": [[1, 2]]}]},
    "shape 2 has no 'label'": {"shapes": [TRIANGLE, {**TRIANGLE, "label": "  "}]},
    "shape 1 has not the 3 or more 'points'": {"shapes": [shape("a", "polygon", (1, 2), (3, 4))]},
    "not pairs of numbers": {"shapes": [shape("a", "rectangle", (1, 2), (3, "b"))]},
    "mask cannot be drawn: a polygon has a corner far outside the picture": {
        "shapes": [
            shape("a", "mask", (1, 2), (3, 4), mask=MASK, group_id=1),
            shape("a", "polygon", (1, 2), (3, 4), (200_000, 4), group_id=1),
        ]
    },
    "holds a picture or mask that is not in base64": {
        "shapes": [shape("a", "mask", (1, 2), (3, 4), mask="?")]
    },
    "mask that is no picture": {"shapes": [shape("a", "mask", (1, 2), (3, 4), mask="AAAA")]},
    "is no file of labelme": {"shapes": None},
    "names the picture 'gone.jpg', which is not there, and holds none; put it beside": {
        "imagePath": "gone.jpg"
    },
    "not in base64": {"imagePath": "gone.jpg", "imageData": "?"},
    "not in base64 (string argument": {"imagePath": "gone.jpg", "imageData": "é"},
}


@pytest.mark.parametrize("words", WRONG)
def test_wrong_files_are_told(folder, words):
    write(folder, **{"shapes": [TRIANGLE], **WRONG[words]})
    with refused("a.json", words):
        load(folder)


def test_wrong_folders_are_told(folder):
    with refused(str(folder), "has no .json file of labelme"):
        load(folder)
    (folder / "a.json").write_text("{")
    with refused("a.json", "cannot be read as JSON"):
        load(folder)
    write(folder)
    with refused("has an object", "classes.txt"):
        load(folder)
    with refused("absent", "does not exist"):
        load(folder / "absent")
