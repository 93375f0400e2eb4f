"""Precision-recall curves against a case counted by hand, and against the figures."""

from __future__ import annotations

import json

import numpy as np
import pytest
from box_helpers import detections_of, truth_of

from ion_d2.data.coco_file import read_coco_file
from ion_d2.evaluation.coco_style import coco_figures, evaluate_coco_content
from ion_d2.evaluation.voc_ap import voc_average_precision
from ion_lab.report.evaluated_run import Outcome
from ion_lab.report.precision_recall import Curve, coco_curve, thin, voc_curve

# Three objects in two images; five detections, from the surest on: right, wrong (no box), right,
# wrong (a box found before), right.
BOXES = {"a": [[0, 0, 20, 20], [40, 40, 60, 60]], "b": [[10, 10, 30, 50]]}
A_BOXES = [[0, 0, 20, 20], [70, 70, 90, 90], [0, 0, 20, 21], [40, 40, 60, 62]]
FOUND = {"a": (A_BOXES, [0.9, 0.8, 0.5, 0.4]), "b": ([[10, 10, 30, 48]], [0.7])}


def outcome(found=FOUND, classes=1):
    truth = {key: truth_of(boxes) for key, boxes in BOXES.items()}
    detections = {key: detections_of(*both) for key, both in found.items()}
    return Outcome("set", ".", ["x"] * classes, {}, truth, detections, None, [])


def test_voc_curve_by_hand():
    curve = voc_curve(outcome(), 0, 0.5)
    np.testing.assert_allclose(curve.recall, np.array([1, 1, 2, 2, 3]) / 3)
    np.testing.assert_allclose(curve.precision, [1, 1 / 2, 2 / 3, 2 / 4, 3 / 5])
    assert curve.sure == 3  # the scores 0.9, 0.8, 0.7 and 0.5


def test_curves_need_objects_and_detections():
    assert voc_curve(outcome(classes=2), 1, 0.5) is None
    assert voc_curve(outcome({"a": ([], []), "b": ([], [])}), 0, 0.5) is None
    assert voc_curve(outcome(), 0, 0.95).sure is None


@pytest.fixture
def annotations(tmp_path):
    numbers = {"a": 1, "b": 2}
    boxes = [(numbers[key], box) for key, boxes in BOXES.items() for box in boxes]
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 99, "height": 99} for i in (1, 2)],
        "categories": [{"id": 3, "name": "x"}, {"id": 8, "name": "y"}],
        "annotations": [
            {"id": i, "image_id": image, "category_id": 3, "iscrowd": 0,
             "bbox": xywh(box), "area": (box[2] - box[0]) * (box[3] - box[1])}
            for i, (image, box) in enumerate(boxes, 1)
        ],
    }  # fmt: skip
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(content))
    results = [
        {"image_id": numbers[key], "category_id": 3, "bbox": xywh(box), "score": score}
        for key, (found, scores) in FOUND.items()
        for box, score in zip(found, scores)
    ]
    return read_coco_file(str(path)), results


def xywh(box):
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]


def test_coco_curve_by_hand(annotations):
    evaluation = evaluate_coco_content(*annotations)
    curve = coco_curve(evaluation, 0, 0.5)
    # Best precision at this recall or a higher one, at recalls up to 1/3, 2/3 and 1.
    steps = np.searchsorted([1 / 3, 2 / 3, 1], curve.recall)
    np.testing.assert_allclose(curve.precision, np.array([1, 2 / 3, 3 / 5])[steps])
    assert len(curve.recall) == 101 and curve.recall[-1] == 1
    # The second object is found at the score 0.7, the third at 0.4.
    assert curve.recall[curve.sure] == pytest.approx(0.66)
    assert coco_curve(evaluation, 1, 0.5) is None


def test_curves_have_the_area_of_the_figures(annotations):
    evaluation = evaluate_coco_content(*annotations)
    assert 100 * coco_curve(evaluation, 0, 0.5).precision.mean() == pytest.approx(
        coco_figures(evaluation)["AP50"]
    )
    recall, precision, _ = voc_curve(outcome(), 0, 0.5)
    by_hand = (1 + 2 / 3 + 3 / 5) / 3
    assert voc_average_precision(recall, precision, "area") == pytest.approx(by_hand)


def test_coco_without_detections_is_0_and_has_no_curve(annotations):
    evaluation = evaluate_coco_content(annotations[0], [])
    assert coco_figures(evaluation)["AP"] == 0 and np.isnan(coco_figures(evaluation)["APl"])
    assert coco_curve(evaluation, 0, 0.5) is None


def test_long_curves_lose_points_but_not_their_ends():
    recall = np.linspace(0, 1, 5000)
    curve = thin(Curve(recall, 1 - recall, 1234))
    assert len(curve.recall) <= 301 and curve.recall[0] == 0 and curve.recall[-1] == 1
    assert curve.recall[curve.sure] == recall[1234]
    np.testing.assert_allclose(curve.precision, 1 - curve.recall)
    assert thin(Curve(recall[:1], recall[:1], None)).sure is None
