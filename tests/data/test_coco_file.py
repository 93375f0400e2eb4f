"""Every field of a COCO file is used rightly, in training and evaluation alike, or told."""

from __future__ import annotations

import copy
import json
import math

import numpy as np
import pytest
import torch
from coco_json import TWO, change_file, every, renumber, turn, write_coco
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from refusals import refused

from ion_d2.data.catalog import class_names, ensure_registered
from ion_d2.data.coco_file import read_coco_file
from ion_d2.evaluation import IONCOCOEvaluator
from ion_d2.evaluation.coco_style import coco_figures, evaluate_coco_file

pytestmark = pytest.mark.usefixtures("catalogs")

# x, y, width, height of the objects of TWO, by number of the image.
TRUE_BOXES = {1: [[5, 4, 40, 40], [12, 9, 14, 14]], 2: [[30, 8, 50, 50], [40, 20, 11, 11]]}
TRUE_CLASSES = {1: [0, 1], 2: [1, 0]}


@pytest.fixture
def coco(tmp_path):
    return write_coco(tmp_path, *TWO)


def evaluate(name, found):
    """The evaluator's figures of (image id, boxes, scores, classes), and its rows of results."""
    evaluator = IONCOCOEvaluator(name, use_fast_impl=False)
    evaluator.reset()
    for image_id, boxes, scores, classes in found:
        corners = torch.tensor(boxes, dtype=torch.float64)
        corners[:, 2:] += corners[:, :2]
        instances = Instances((64, 96), pred_boxes=Boxes(corners), scores=torch.tensor(scores))
        instances.pred_classes = torch.tensor(classes)
        evaluator.process([{"image_id": image_id}], [{"instances": instances}])
    # Copies: the evaluator changes its own.
    results = [dict(row) for image in evaluator._predictions for row in image["instances"]]
    return evaluator.evaluate()["bbox"], results


def figures_of_perfect(name, image_ids=(1, 2)):
    """AP50 and APs of the true boxes as detections, by the evaluator; AP50 by the report."""
    numbers = enumerate(image_ids, start=1)
    found = [(i, TRUE_BOXES[n], [0.9, 0.8], TRUE_CLASSES[n]) for n, i in numbers]
    figures, results = evaluate(name, found)
    file = MetadataCatalog.get(name).json_file
    ids = [category["id"] for category in read_coco_file(file)["categories"]]
    report = [{**row, "category_id": ids[row["category_id"]]} for row in results]
    reported = coco_figures(evaluate_coco_file(file, report))
    return figures["AP50"], figures["APs"], reported["AP50"]


def trained(name):
    """Boxes and classes of the dicts, by file name."""
    return {
        record["file_name"].rsplit("/", 1)[1]: [
            (a["bbox"], a["category_id"]) for a in record["annotations"]
        ]
        for record in DatasetCatalog.get(name)
    }


RIGHT = {f"{n}.png": list(zip(TRUE_BOXES[n], TRUE_CLASSES[n])) for n in (1, 2)}


USED = {
    "ids from 0": every("annotations", id=lambda _, i: i),
    "ids from -1": every("annotations", id=lambda _, i: i - 1),
    "ids all the same": every("annotations", id=1),
    "ids null": every("annotations", id=None),
    "ids missing": every("annotations", id=...),
    "ids text": every("annotations", id=lambda _, i: f"a{i}"),
    "ids lists": every("annotations", id=[1]),
    "ids as text": renumber(str),
    "ids as float": renumber(float),
    "ids from 0 everywhere": renumber(lambda number: {1: 0, 2: 1, 3: 0, 7: 4}[number]),
    "ids are words": renumber(lambda number: {1: "a", 2: "b", 3: "k", 7: "l"}[number]),
    "iscrowd null": every("annotations", iscrowd=None),
    "iscrowd missing": every("annotations", iscrowd=...),
    "iscrowd false": every("annotations", iscrowd=False),
    "iscrowd 0.0": every("annotations", iscrowd=0.0),
    "area null": every("annotations", area=None),
    "area missing": every("annotations", area=...),
    "area negative": every("annotations", area=lambda e, _: -e["area"]),
    "ignore 0": every("annotations", ignore=0),
    "mask null": every("annotations", segmentation=None),
    "mask []": every("annotations", segmentation=[]),
    "mask [[]]": every("annotations", segmentation=[[]]),
    "mask {}": every("annotations", segmentation={}),
    "mask missing": every("annotations", segmentation=...),
    "mask of two points": every("annotations", segmentation=[[1, 1, 5, 5]]),
    "some masks [[]]": every("annotations", segmentation=lambda e, i: [[]] if i % 2 else None),
    "turned width": turn("x"),
    "turned height": turn("y"),
    "turned both": turn("xy"),
    "sizes as float": every("images", width=96.0, height=64.0),
    "keypoints null": every("annotations", keypoints=None),
    "further fields": every("annotations", attributes={"a": [None]}, score="x"),
    "no info": lambda content: content.pop("info", None),
}  # fmt: skip


@pytest.mark.parametrize("change", USED.values(), ids=USED)
def test_what_can_be_used_counts_in_training_evaluation_and_report(coco, change):
    change_file(coco, change)
    ensure_registered([coco])
    assert trained(coco) == RIGHT
    ids = [record["image_id"] for record in DatasetCatalog.get(coco)]
    assert figures_of_perfect(coco, ids) == pytest.approx((100, 100, 100))


NAN, INF = math.nan, math.inf
TOLD = {
    ("annotations", "bbox"): (
        ..., None, [], [1, 2, 3], [1, 2, 3, 4, 5], [1, 2, 3, "4"], "1,2,3,4", 7, [1, 2, 3, None],
        [1, 2, NAN, 4], [INF, 2, 3, 4], [1, 2, 3, True], [1, 2, 1e30, 4], [1, 2, 10**400, 4],
        {"x": 1}, [[1, 2, 3, 4]]),
    ("annotations", "iscrowd"): ("0", "false", [], {}, 2, -1, NAN, 0.5),
    ("annotations", "area"): ("1600", [1600], {}, NAN, INF, True),
    ("annotations", "image_id"): (..., None, 99, "", "1", [1], True, 1.5),
    ("annotations", "category_id"): (..., None, 99, -1, "3", {}, NAN),
    ("annotations", "segmentation"): (
        "10,10,50,10,50,50", [10, 10, 50, 10, 50, 50], [[1, 1, 5, 1, 5, 5, 1]],
        [[1, 1, 5, 1, 5, NAN]], [[1, 1, 5, 1, 5, 1e12]], [["1"] * 6], [None], 7,
        [{"x": 1, "y": 2}], {"size": [64, 96]}, {"size": [96, 64], "counts": [6144]},
        {"size": [64, 96], "counts": [5]}, {"size": [64, 96], "counts": None},
        {"counts": [6144]}, {"size": [64, 96], "counts": "~"}),
    ("annotations", "keypoints"): ("a", [1, 2], [1, 2, None], [1, 2, 3], 5),
    ("annotations", "ignore"): (1,),
    ("images", "id"): (..., None, 2, "2", [1], 1.5, True, "", "x"),
    ("images", "file_name"): (..., None, "", 7, "2.png", ["1.png"], "a\nb"),
    ("images", "width"): (..., None, "96", 0, -96, 96.5, NAN, [96], True),
    ("images", "height"): (..., None, 0),
    ("categories", "id"): (..., None, 3, "3", "x", [], 0.5, False, " "),
    ("categories", "name"): (
        ..., None, "", " ", "red", 1.5, True, ["x"], "a\nb", "a\u2028b", "\ud800"),
}  # fmt: skip


def told(coco, change):
    """The one line that tells what is wrong with a changed file."""
    path = change_file(coco, change)
    with refused() as caught:
        ensure_registered([coco])
        DatasetCatalog.get(coco)
    message = str(caught.value)
    assert message.startswith(path) and len(message) < len(path) + 300
    assert len(message.splitlines()) == 1  # line ends of Unicode count too
    return message


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [(*place, value) for place, values in TOLD.items() for value in values],
)
def test_what_cannot_be_used_is_told_by_file_place_and_field(coco, part, field, value):
    message = told(coco, lambda content: every(part, **{field: value})({part: content[part][:1]}))
    assert part[:6] in message and field in message
    if part == "annotations":
        assert "annotation id 1 (annotations[0])" in message
        assert "image 1.png (id 1)" in message or field == "image_id"


A = {"categories": [{"id": 1, "name": "a"}]}
B = {**A, "images": []}
LAYOUTS = {
    "categories": ({}, [], None, "text", *({"categories": x} for x in ({"1": "cat"}, ["cat"], []))),
    "images": (A, {**A, "images": {}}, {**A, "images": [5]}),
    "annotations": ({**B, "annotations": None}, {**B, "annotations": [[]]}),
}


@pytest.mark.parametrize(
    ("word", "content"), [(word, x) for word, contents in LAYOUTS.items() for x in contents]
)
def test_files_of_another_layout_are_told(coco, word, content):
    assert word in told(coco, lambda _: (content,))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (every("images", id=1), ["images[1] (2.png)", "id 1", "images[0] (1.png)"]),
        # Both forms of Unicode's e with an acute accent.
        (
            every("categories", name=lambda _, i: ("e\u0301", "\xe9")[i]),
            ["categories[1]", "name '\xe9'", "categories[0]"],
        ),
    ],
)
def test_what_two_entries_share_is_told_by_both(coco, change, words):
    message = told(coco, change)
    assert all(word in message for word in words)


@pytest.mark.parametrize(
    ("names", "expected"), [((7, 8), ["8", "7"]), (("e\u0301", "\u732b"), ["\u732b", "\xe9"])]
)
def test_names_are_text_in_one_form(coco, names, expected):
    change_file(coco, every("categories", name=lambda _, i: names[i]))
    assert class_names([coco]) == expected
    DatasetCatalog.get(coco)


@pytest.mark.parametrize(
    "box", [[9, 9, 0, 20], [9, 9, 20, 0], [96, 9, 5, 5], [9, 64, 5, 5], [-9, 9, 9, 9], [0] * 4]
)
def test_boxes_without_a_pixel_in_the_picture_are_left_out_with_a_warning(coco, box, caplog):
    def add(content):
        extra = {"id": 9, "image_id": 2, "category_id": 3, "bbox": box, "area": 0, "iscrowd": 0}
        content["annotations"].append(extra)

    path = change_file(coco, add)
    ensure_registered([coco])
    with caplog.at_level("WARNING"):
        assert trained(coco) == RIGHT
    assert f"{path}: 1 boxes without a pixel" in caplog.text
    assert "annotation id 9 (annotations[4]) of image 2.png" in caplog.text
    assert figures_of_perfect(coco) == pytest.approx((100, 100, 100))


def test_a_byte_order_mark_is_no_fault(coco, tmp_path):
    path = tmp_path / "all.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    ensure_registered([coco])
    assert trained(coco) == RIGHT


def mess_up(content):
    """Spoil a file in many ways at once, none of which changes what it says."""
    renumber(str)(content)
    for index, entry in enumerate(content["annotations"]):
        entry["id"] = index // 2 or None
        entry["iscrowd"] = (None, 0, False)[index % 3] if not entry["iscrowd"] else True
        if index % 4 == 1:
            x, y, width, height = entry["bbox"]
            entry["bbox"] = [x + width, y + height, -width, -height]
        if index % 5 == 2:
            entry["segmentation"] = [[]]


def test_figures_of_a_messy_file_are_pycocotools_on_the_clean_one(tmp_path, capsys):
    """Random boxes, crowds and detections, evaluated by pycocotools without any code of ours."""
    rng = np.random.default_rng(5)
    images = [{"id": i, "file_name": f"{i}.png", "width": 300, "height": 200} for i in range(1, 13)]
    content = {"images": images, "annotations": [], "categories": [
        {"id": 4, "name": "a"}, {"id": 9, "name": "b"}]}  # fmt: skip
    results = []
    for image in images:
        for _ in range(6):
            x, y, w, h = (float(v) for v in rng.uniform([0, 0, 8, 8], [150, 90, 140, 105]).round(2))
            entry = {"image_id": image["id"], "category_id": int(rng.choice([4, 9]))}
            content["annotations"].append({
                **entry, "id": len(content["annotations"]) + 1, "bbox": [x, y, w, h],
                "area": w * h * 0.7, "iscrowd": int(rng.random() < 0.15)})  # fmt: skip
            for noise in (2, 9):
                box = [x, y, w, h] + rng.normal(0, noise, 4)
                box[2:] = np.maximum(box[2:], 1)
                results.append({**entry, "bbox": box.tolist(), "score": float(rng.random())})
    clean, messy = tmp_path / "clean.json", tmp_path / "messy.json"
    clean.write_text(json.dumps(content))
    spoiled = copy.deepcopy(content)
    mess_up(spoiled)
    messy.write_text(json.dumps(spoiled))
    truth = COCO(str(clean))
    expected = COCOeval(truth, truth.loadRes(results), "bbox")
    for step in (expected.evaluate, expected.accumulate, expected.summarize):
        step()
    assert 0.1 < expected.stats[0] < 0.9
    as_text = [{**r, **{k: str(r[k]) for k in ("image_id", "category_id")}} for r in results]
    capsys.readouterr()
    for file, rows in ((messy, as_text), (clean, results)):
        stats = evaluate_coco_file(file, rows).stats
        np.testing.assert_array_equal(stats, expected.stats)
    assert capsys.readouterr().out == ""
    name = f"coco:{messy}:{tmp_path}"
    ensure_registered([name])
    found = []
    for image in images:
        rows = [r for r in results if r["image_id"] == image["id"]]
        classes = [(4, 9).index(r["category_id"]) for r in rows]
        found.append((image["id"], [r["bbox"] for r in rows], [r["score"] for r in rows], classes))
    figures, _ = evaluate(name, found)
    measured = [figures[key] for key in ("AP", "AP50", "AP75", "APs", "APm", "APl")]
    np.testing.assert_allclose(measured, 100 * expected.stats[:6], atol=0.05)
