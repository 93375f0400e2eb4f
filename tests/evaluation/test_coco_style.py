"""COCO figures: values found by hand, and pycocotools run the ordinary way on files."""

from __future__ import annotations

import json

import numpy as np
import pytest
from box_helpers import detections_of, truth_of
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ion_d2.evaluation.coco_style import COCO_METRICS, evaluate_coco_style

NOTHING = detections_of([])
SMALL, MEDIUM, LARGE = [0, 0, 20, 20], [100, 0, 150, 50], [200, 0, 300, 100]


def test_perfect_detections_of_every_size(capsys):
    ground_truth = {"a": truth_of([SMALL, LARGE]), "b": truth_of([MEDIUM], [1])}
    detections = {k: detections_of(t.boxes, classes=t.classes) for k, t in ground_truth.items()}
    figures = evaluate_coco_style(ground_truth, detections, ["x", "y"])
    assert list(figures) == list(COCO_METRICS)
    expected = {**dict.fromkeys(COCO_METRICS, 100), "AR1": 75}  # AR1 of x: one of its two
    assert figures == pytest.approx(expected)
    assert capsys.readouterr() == ("", "")


def test_partial_overlap_by_hand():
    # One of two boxes is found, with IoU 62/100: right at the thresholds .50, .55 and .60.
    ground_truth = {"a": truth_of([[0, 0, 10, 10], [50, 50, 60, 60]])}
    figures = evaluate_coco_style(ground_truth, {"a": detections_of([[0, 0, 10, 6.2]])}, ["x"])
    reached = 100 * 51 / 101  # precision 1 at the recall points 0, 0.01, ..., 0.50
    assert figures["AP50"] == pytest.approx(reached)
    assert figures["AP75"] == 0
    assert figures["AP"] == figures["APs"] == pytest.approx(0.3 * reached)
    assert figures["AR100"] == pytest.approx(15)
    assert np.isnan(figures["APm"]) and np.isnan(figures["APl"])


def test_difficult_boxes_neither_help_nor_hurt():
    ground_truth = {"a": truth_of([SMALL, LARGE], difficult=[0, 1])}
    parts_of_large = [[200, 0, 250, 50], [250, 50, 300, 100]]
    detections = {"a": detections_of([*parts_of_large, SMALL], [0.9, 0.8, 0.7])}
    figures = evaluate_coco_style(ground_truth, detections, ["x"])
    assert figures["AP"] == pytest.approx(100)
    assert np.isnan(figures["APl"])
    missed = evaluate_coco_style(ground_truth, {"a": detections_of([SMALL], [0.7])}, ["x"])
    assert missed["AP"] == pytest.approx(100)


def test_no_detections_is_zero_and_no_truth_is_nan():
    found_nothing = evaluate_coco_style({"a": truth_of([SMALL])}, {"a": NOTHING}, ["x"])
    assert found_nothing["AP"] == found_nothing["AR100"] == found_nothing["APs"] == 0
    assert np.isnan(found_nothing["APl"])
    unlabeled = {"a": truth_of([])}
    for truth, found in ((unlabeled, detections_of([SMALL])), (unlabeled, NOTHING), ({}, None)):
        detections = {"a": found} if found else {}
        assert np.isnan(list(evaluate_coco_style(truth, detections, ["x"]).values())).all()


def test_equals_pycocotools_on_files(tmp_path):
    rng = np.random.default_rng(3)
    images, annotations, results = [], [], []
    ground_truth, detections = {}, {}
    for number in range(10, 25):
        corner = rng.uniform(0, 300, size=(6, 2))
        boxes = np.hstack([corner, corner + rng.uniform(8, 150, size=(6, 2))])
        classes, crowd = rng.integers(0, 3, size=6), rng.random(6) < 0.2
        noisy = np.tile(boxes, (3, 1)) + rng.normal(scale=5, size=(18, 4))
        scores = rng.random(18)
        ground_truth[f"im{number}"] = truth_of(boxes, classes, crowd)
        detections[f"im{number}"] = detections_of(noisy, scores, np.tile(classes, 3))
        images.append({"id": number, "width": 500, "height": 500, "file_name": "x"})
        for box, category, ignored in zip(boxes, classes, crowd):
            size = box[2:] - box[:2]
            fields = {"bbox": [*box[:2], *size], "area": size.prod(), "iscrowd": int(ignored)}
            ids = {"id": len(annotations) + 1, "image_id": number, "category_id": int(category) + 5}
            annotations.append({**fields, **ids})
        for box, score, category in zip(noisy, scores, np.tile(classes, 3)):
            fields = {"bbox": [*box[:2], *(box[2:] - box[:2])], "score": score}
            results.append({**fields, "image_id": number, "category_id": int(category) + 5})
    categories = [{"id": i + 5, "name": name} for i, name in enumerate("abc")]
    content = {"images": images, "annotations": annotations, "categories": categories, "info": {}}
    (tmp_path / "truth.json").write_text(json.dumps(content))
    (tmp_path / "results.json").write_text(json.dumps(results))
    truth = COCO(str(tmp_path / "truth.json"))
    reference = COCOeval(truth, truth.loadRes(str(tmp_path / "results.json")), "bbox")
    for step in (reference.evaluate, reference.accumulate, reference.summarize):
        step()
    figures = evaluate_coco_style(ground_truth, detections, list("abc"))
    assert 5 < figures["AP"] < 95
    np.testing.assert_allclose(list(figures.values()), 100 * reference.stats, atol=1e-9)
