"""The forms of demo.py's results, read back by others, and the files that it does not replace."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from demo_helpers import errors, model, picture, pixels
from detectron2.data import DatasetCatalog
from detectron2.structures import Boxes, BoxMode, Instances
from pycocotools.coco import COCO

from ion_d2.data import class_names, ensure_registered

pytestmark = pytest.mark.usefixtures("catalogs")
LOW = ("--confidence-threshold", "0.02")
ALL = ("--save", "json", "csv", "coco", "yolo", "labelme")


@pytest.fixture
def pictures(tmp_path):
    names = ("a b.png", "ü #1.png", "deep/a b.png", "deep/x.v2.png")
    for seed, name in enumerate(names):
        picture(tmp_path / "in" / name, seed)
    return tmp_path / "in"


def boxes_of(entries):
    """Classes and corners by the content of a picture."""
    return {
        Path(entry["file"]).read_bytes(): [
            (each["class"], *each["box"]) for each in entry["detections"]
        ]
        for entry in entries
    }


def labels_of(dataset):
    """The same of a dataset."""
    ensure_registered([dataset])
    classes = class_names([dataset])
    return {
        Path(record["file_name"]).read_bytes(): [
            (
                classes[each["category_id"]],
                *BoxMode.convert(list(each["bbox"]), each["bbox_mode"], BoxMode.XYXY_ABS),
            )
            for each in record["annotations"]
        ]
        for record in DatasetCatalog.get(dataset)
    }


def assert_same(found, wanted):
    assert found.keys() == wanted.keys() and any(wanted.values())
    for content, rows in wanted.items():
        assert [row[0] for row in found[content]] == [row[0] for row in rows]
        values = [[row[1:] for row in each] for each in (found[content], rows)]
        np.testing.assert_allclose(*values, atol=0.0051)


def test_all_forms_have_the_same_boxes(run, weights, pictures, out, listed, capfd):
    assert run([pictures], *LOW, *ALL, *model(weights)) == 0
    told = [line.removeprefix("Wrote ") for line in capfd.readouterr().out.splitlines()]
    entries = listed()
    assert len(entries) == 4 and all(entry["detections"] for entry in entries)
    wanted = boxes_of(entries)
    for form in ("yolo", "labelme", "detections"):
        (dataset,) = [x for x in (*told, f"detections:{out}/detections.json") if form + ":" in x]
        assert_same(labels_of(dataset), wanted)
    _check_csv(out, entries)
    _check_coco(out, entries)


def _check_csv(out, entries):
    with open(out / "detections.csv", newline="", encoding="utf-8") as file:
        rows = [
            (row["file"], row["class"], *(float(row[key]) for key in ("score", "x0", "y1")))
            for row in csv.DictReader(file)
        ]
    assert rows == [
        (entry["file"], each["class"], each["score"], each["box"][0], each["box"][3])
        for entry in entries
        for each in entry["detections"]
    ]


def _check_coco(out, entries):
    coco = COCO(str(out / "coco_images.json"))
    results = coco.loadRes(str(out / "coco_results.json"))
    assert [coco.imgs[i]["file_name"] for i in sorted(coco.imgs)] == [x["file"] for x in entries]
    for image_id, entry in enumerate(entries, 1):
        found = results.imgToAnns[image_id]
        names = [coco.cats[each["category_id"]]["name"] for each in found]
        assert names == [each["class"] for each in entry["detections"]]
        corners = [(x, y, x + w, y + h) for x, y, w, h in (each["bbox"] for each in found)]
        np.testing.assert_allclose(corners, [x["box"] for x in entry["detections"]], atol=0.0051)
        assert coco.imgs[image_id]["width"] == entry["width"] == 80


def test_what_json_dump_would_write(run, weights, pictures, out, listed):
    assert run([pictures], "--confidence-threshold", "1", *model(weights)) == 0
    assert [entry["detections"] for entry in listed()] == [[]] * 4
    assert (out / "detections.json").read_text() == json.dumps(listed(), indent=1)
    bad = pictures.parent / "bad.png"
    bad.write_text("no picture")
    assert run([bad], *ALL[:4], *model(weights)) == 1
    assert listed() == [] and json.loads((out / "coco_results.json").read_text()) == []


def test_coco_results_have_masks(demo, tmp_path):
    """What a plugged Mask R-CNN finds, the surest first."""
    masks = torch.zeros(2, 60, 80, dtype=torch.bool)
    masks[0, 10:20, 5:15] = masks[1, 30:35, 40:60] = True
    found = Instances((60, 80), scores=torch.tensor([0.6, 0.9]), pred_masks=masks)
    found.pred_boxes = Boxes(torch.tensor([[5.0, 10, 15, 20], [40, 30, 60, 35]]))
    found.pred_classes = torch.tensor([1, 0])
    folder = demo.OutputFolder(tmp_path)
    results, faults = demo.Results(folder, ["ant", "bee"], ["coco"]), {}
    results.add(demo.Shot("a.jpg", pixels(), tmp_path / "a.jpg"), found)
    results.write(faults)
    read = COCO(str(tmp_path / "coco_images.json")).loadRes(str(tmp_path / "coco_results.json"))
    first, second = read.loadAnns(read.getAnnIds())
    assert (first["category_id"], second["category_id"], faults) == (1, 2, {})
    assert read.annToMask(first).sum() == 100 and read.annToMask(second).sum() == 100
    assert read.annToMask(first)[30:35, 40:60].all() and first["score"] > second["score"]


def test_any_class_name_is_read_back(demo, tmp_path):
    names = ["background", "#1 bolt"]
    found = Instances((60, 80), scores=torch.tensor([0.6]), pred_classes=torch.tensor([1]))
    found.pred_boxes = Boxes(torch.tensor([[5.0, 10, 15, 20]]))
    results = demo.Results(demo.OutputFolder(tmp_path), names, ["json"])
    results.add(demo.Shot(str(picture(tmp_path / "a.jpg", 1)), pixels(), tmp_path / "a.jpg"), found)
    results.write({})
    (boxes,) = labels_of(f"detections:{tmp_path}/detections.json").values()
    assert boxes == [("#1 bolt", 5, 10, 15, 20)]
    assert class_names([f"detections:{tmp_path}/detections.json"]) == names


def test_a_batch_finds_what_single_pictures_have(run, weights, pictures, listed):
    picture(pictures / "b.png", 7, size=(90, 70))  # between others, by name
    assert run([pictures], *LOW, "--no-drawings", *model(weights)) == 0
    alone = boxes_of(listed())
    assert run([pictures], *LOW, "--no-drawings", "--batch", "3", *model(weights)) == 0
    assert len(alone) == 5
    assert_same(boxes_of(listed()), alone)


def test_only_own_files_are_replaced(run, weights, pictures, out, listed, capfd):
    out.mkdir()
    mine = picture(out / "a b.jpg", 5)
    content = mine.read_bytes()
    for _ in range(2):  # the second run replaces what the first wrote
        assert run([pictures], *LOW, *model(weights)) == 0
        drawn = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.jpg"))
        wanted = ["a b.jpg", "a b_2.jpg", "deep/a b.jpg", "deep/x.v2.jpg", "ü #1.jpg"]
        assert drawn == wanted and mine.read_bytes() == content
    report = out / "detections.json"
    report.write_text(report.read_text() + "\n")  # edited
    edited = report.read_bytes()
    assert run([pictures], *model(weights)) == 1
    (line,) = errors(capfd)
    assert "detections.json is there" in line and report.read_bytes() == edited


@pytest.mark.parametrize("form", ["yolo", "labelme"])
def test_labels_may_have_been_corrected(run, weights, pictures, out, form, capfd):
    assert run([pictures], "--save", form, *model(weights)) == 0
    assert run([pictures], "--save", form, *model(weights)) == 1
    (line,) = errors(capfd)
    assert f"out/{form} is there" in line
    assert not (out / "detections.json").exists()


def test_results_beside_the_inputs_are_not_detected_on(run, weights, pictures):
    for options in (["--save", "json", "yolo"], []):
        assert run([pictures], *options, *model(weights), output=pictures) == 0
        assert len(json.loads((pictures / "detections.json").read_text())) == 4
        assert len(list(pictures.rglob("*.jpg"))) == 4
