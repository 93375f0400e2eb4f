"""VOC average precision against Detectron2's voc_eval, pixel counting and values found by hand."""

from __future__ import annotations

import functools
import time
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from detectron2.evaluation import pascal_voc_evaluation

from ion_d2.errors import IONError
from ion_d2.evaluation.image_boxes import Detections, GroundTruth
from ion_d2.evaluation.voc_ap import COCO_THRESHOLDS, evaluate_voc, voc_average_precision
from ion_d2.evaluation.voc_matching import inclusive_iou, match_class, precision_recall

BCCD = Path(__file__).resolve().parents[2] / "../shared/data/bccd/VOC2007"
CLASSES = ["cat", "dog", "cow", "absent", "unlabeled"]


def truth_of(boxes, classes, difficult=None):
    difficult = np.zeros(len(boxes)) if difficult is None else difficult
    return GroundTruth(
        np.array(boxes, dtype=float).reshape(-1, 4),
        np.array(classes, dtype=int),
        np.array(difficult, dtype=bool),
    )


def detections_of(boxes, scores, classes):
    return Detections(
        np.array(boxes, dtype=float).reshape(-1, 4),
        np.array(scores, dtype=float),
        np.array(classes, dtype=int),
    )


def write_xml(path, truth, class_names):
    root = ElementTree.Element("annotation")
    for box, category, difficult in zip(*truth):
        node = ElementTree.SubElement(root, "object")
        fields = {"name": class_names[category], "pose": "Unspecified", "truncated": "0"}
        for name, text in {**fields, "difficult": str(int(difficult))}.items():
            ElementTree.SubElement(node, name).text = text
        corners = ElementTree.SubElement(node, "bndbox")
        for name, value in zip(("xmin", "ymin", "xmax", "ymax"), box):
            ElementTree.SubElement(corners, name).text = str(int(value))
    ElementTree.ElementTree(root).write(path)


def detectron2_ap(folder, annotations, detections, class_names, monkeypatch):
    """AP of every class and threshold by Detectron2's voc_eval, from files: metric -> (C, T)."""
    # Its sort is not stable; ties then rank by chance, and so does the AP.
    stable = functools.partial(np.argsort, kind="stable")
    monkeypatch.setattr(pascal_voc_evaluation.np, "argsort", stable)
    (folder / "split.txt").write_text("\n".join(detections))
    for index, name in enumerate(class_names):
        lines = [
            " ".join([image_id, repr(float(score)), *(repr(float(v)) for v in box)])
            for image_id, found in detections.items()
            for box, score, category in zip(*found)
            if category == index
        ]
        (folder / f"det_{name}.txt").write_text("\n".join(lines))
    arguments = (str(folder / "det_{}.txt"), str(annotations), str(folder / "split.txt"))
    with np.errstate(invalid="ignore"):
        tables = {
            metric: [
                [
                    pascal_voc_evaluation.voc_eval(*arguments, name, threshold, metric == "11point")
                    for threshold in COCO_THRESHOLDS
                ]
                for name in class_names
            ]
            for metric in ("11point", "area")
        }
    monkeypatch.undo()
    return {m: np.array([[cell[2] for cell in row] for row in t]) for m, t in tables.items()}


def random_scenes(seed, num_images=12):
    """Crowded integer boxes, some difficult, found again with small shifts, twice, or not at all.

    Scores have one decimal, so that many are equal. No box is of class "absent" and every box of
    class "unlabeled" is difficult; both are detected.
    """
    rng = np.random.default_rng(seed)
    ground_truth, detections = {}, {}
    for image in range(num_images):
        count = rng.integers(0, 9)
        corner = rng.integers(1, 60, size=(count, 2))
        boxes = np.hstack([corner, corner + rng.integers(0, 40, size=(count, 2))])
        classes = rng.choice([0, 1, 2, 4], size=count)
        difficult = (rng.random(count) < 0.25) | (classes == 4)
        again = np.repeat(np.arange(count), rng.integers(0, 4, size=count))
        shifted = boxes[again] + rng.integers(-4, 5, size=(len(again), 4))
        shifted[:, 2:] = np.maximum(shifted[:, 2:], shifted[:, :2])
        stray = np.tile([5.25, 7.5, 30.125, 44.0], (4, 1)) + rng.integers(0, 30, size=(4, 1))
        found = np.vstack([shifted, stray])
        labels = np.concatenate([classes[again], rng.integers(0, 5, size=4)])
        scores = rng.integers(0, 11, size=len(found)) / 10
        ground_truth[f"im{image}"] = truth_of(boxes, classes, difficult)
        detections[f"im{image}"] = detections_of(found, scores, labels)
    return ground_truth, detections


@pytest.mark.parametrize("seed", range(4))
def test_equals_detectron2_on_random_scenes(seed, tmp_path, monkeypatch):
    ground_truth, detections = random_scenes(seed)
    for image_id, truth in ground_truth.items():
        write_xml(tmp_path / f"{image_id}.xml", truth, CLASSES)
    theirs = detectron2_ap(tmp_path, tmp_path / "{}.xml", detections, CLASSES, monkeypatch)

    result = evaluate_voc(ground_truth, detections, CLASSES)

    for metric, table in theirs.items():
        assert 0.05 < table[:3].mean() < 0.95  # else the scenes would prove nothing
        np.testing.assert_allclose(result.ap[metric][:3], table[:3], rtol=0, atol=1e-14)
        assert np.isnan(result.ap[metric][3:]).all()
    marked = [t.classes[t.difficult] for t in ground_truth.values()]
    counts = np.bincount(np.concatenate(marked), minlength=len(CLASSES))
    assert result.num_difficult.tolist() == counts.tolist()
    assert result.num_positives[3:].tolist() == [0, 0]


def test_curves_equal_detectron2(tmp_path, monkeypatch):
    ground_truth, detections = random_scenes(7)
    for image_id, truth in ground_truth.items():
        write_xml(tmp_path / f"{image_id}.xml", truth, CLASSES)
    detectron2_ap(tmp_path, tmp_path / "{}.xml", detections, CLASSES, monkeypatch)  # the files
    stable = functools.partial(np.argsort, kind="stable")
    monkeypatch.setattr(pascal_voc_evaluation.np, "argsort", stable)
    files = [str(tmp_path / name) for name in ("det_{}.txt", "{}.xml", "split.txt")]
    recall, precision, _ = pascal_voc_evaluation.voc_eval(*files, "dog", 0.5)
    monkeypatch.undo()

    ours = precision_recall(match_class(ground_truth, detections, 1), 0.5)

    np.testing.assert_array_equal(ours[0], precision)
    np.testing.assert_array_equal(ours[1], recall)


@pytest.mark.skipif(not BCCD.is_dir(), reason="the BCCD data set is not at ../shared/data")
def test_equals_detectron2_on_bccd(tmp_path, monkeypatch):
    names = ["Platelets", "RBC", "WBC"]
    image_ids = (BCCD / "ImageSets/Main/test.txt").read_text().split()
    rng = np.random.default_rng(0)
    ground_truth, detections = {}, {}
    for image_id in image_ids:
        objects = ElementTree.parse(BCCD / f"Annotations/{image_id}.xml").findall("object")
        boxes = [[int(v.text) for v in o.find("bndbox")] for o in objects]
        classes = [names.index(o.findtext("name")) for o in objects]
        ground_truth[image_id] = truth_of(boxes, classes)
        again = np.tile(ground_truth[image_id].boxes, (3, 1))
        size = (again[:, 2:] - again[:, :2]).mean(axis=1, keepdims=True)
        noisy = again + rng.normal(scale=0.12, size=again.shape) * size
        scores = rng.random(len(noisy)).round(3)
        detections[image_id] = detections_of(noisy, scores, classes * 3)
    annotations = BCCD / "Annotations/{}.xml"
    theirs = detectron2_ap(tmp_path, annotations, detections, names, monkeypatch)

    result = evaluate_voc(ground_truth, detections, names)

    for metric, table in theirs.items():
        assert 0.1 < table.mean() < 0.9
        np.testing.assert_allclose(result.ap[metric], table, rtol=0, atol=1e-13)
        assert result.mean_ap(metric) == pytest.approx(table.mean(), abs=1e-13)
        assert result.mean_ap(metric, 0.75) == pytest.approx(table[:, 5].mean(), abs=1e-13)

    perfect = {
        i: detections_of(t.boxes, np.ones(len(t.boxes)), t.classes) for i, t in ground_truth.items()
    }
    for table in evaluate_voc(ground_truth, perfect, names).ap.values():
        np.testing.assert_allclose(table, 1.0, rtol=0, atol=1e-12)


def test_iou_counts_pixels():
    rng = np.random.default_rng(1)
    corner = rng.integers(1, 9, size=(14, 2))
    boxes = np.hstack([corner, corner + rng.integers(0, 8, size=(14, 2))])
    masks = np.zeros((14, 20, 20), dtype=bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes):
        mask[y0 : y1 + 1, x0 : x1 + 1] = True
    expected = [[(a & b).sum() / (a | b).sum() for b in masks[6:]] for a in masks[:6]]
    np.testing.assert_allclose(inclusive_iou(boxes[:6], boxes[6:]), expected, atol=1e-15)


def test_hand_worked_case():
    # Two boxes to be found (A, B), one difficult (D), all 10x10 pixels and far apart.
    a, b, d = [1, 1, 10, 10], [101, 1, 110, 10], [201, 1, 210, 10]
    ground_truth = {"one": truth_of([a, d], [0, 0], [0, 1]), "two": truth_of([b], [0])}
    half = [1, 1, 10, 5]  # 50 of A's 100 pixels: IoU exactly 0.5, which is not above 0.5
    detections = {
        "one": detections_of([half, d, a, a, d], [0.9, 0.8, 0.7, 0.6, 0.55], [0] * 5),
        "two": detections_of([b], [0.5], [0]),
    }
    matches = match_class(ground_truth, detections, 0)
    precision, recall = precision_recall(matches, 0.5)
    # false, ignored, right (A), false (A again), ignored, right (B)
    np.testing.assert_allclose(precision, [0, 0, 1 / 2, 1 / 3, 1 / 3, 2 / 4])
    np.testing.assert_allclose(recall, [0, 0, 1 / 2, 1 / 2, 1 / 2, 1])
    assert matches.num_positives == 2 and matches.num_images == 2
    # Best precision from any recall on is 1/2.
    assert voc_average_precision(recall, precision, "11point") == pytest.approx(0.5)
    assert voc_average_precision(recall, precision, "area") == pytest.approx(0.5)
    # Below 0.5 the half box takes A: right, ignored, false, false, ignored, right.
    precision, recall = precision_recall(matches, 0.45)
    np.testing.assert_allclose(precision, [1, 1, 1 / 2, 1 / 3, 1 / 3, 1 / 2])
    # Recall 0 to 0.5 (6 of 11 points) at precision 1, the rest at 1/2.
    assert voc_average_precision(recall, precision, "11point") == pytest.approx((6 + 5 / 2) / 11)
    assert voc_average_precision(recall, precision, "area") == pytest.approx(0.75)


def test_the_two_metrics_differ_as_defined():
    recall, precision = np.array([0.25, 0.5]), np.array([1.0, 0.8])
    # 11-point: recall 0, .1, .2 at precision 1; .3, .4, .5 at .8; the rest is never reached.
    assert voc_average_precision(recall, precision, "11point") == pytest.approx((3 + 2.4) / 11)
    assert voc_average_precision(recall, precision, "area") == pytest.approx(0.25 + 0.25 * 0.8)
    # The devkit's point 3 * 0.1 lies a rounding error above a recall of 3/10.
    recall = np.array([1 / 10, 2 / 10, 3 / 10])
    assert voc_average_precision(recall, np.ones(3), "11point") == pytest.approx(3 / 11)
    empty = np.zeros(0)
    assert voc_average_precision(empty, empty, "area") == 0
    assert voc_average_precision(empty, empty, "11point") == 0


def test_classes_without_boxes_are_left_out_of_the_mean():
    ground_truth = {"im": truth_of([[1, 1, 5, 5], [9, 9, 20, 20]], [0, 2], [0, 1])}
    detections = {"im": detections_of([[1, 1, 5, 5]] * 2, [0.9, 0.8], [0, 1])}
    result = evaluate_voc(ground_truth, detections, ["found", "no truth", "difficult"])
    np.testing.assert_array_equal(result.class_ap("area", 0.5), [1, np.nan, np.nan])
    assert result.mean_ap("area") == 1
    assert result.num_images.tolist() == [1, 0, 0]
    nothing = evaluate_voc({}, {}, ["a"])
    assert np.isnan(nothing.mean_ap("11point", 0.5))


def test_missed_class_counts_as_zero():
    ground_truth = {"im": truth_of([[1, 1, 5, 5], [9, 9, 20, 20]], [0, 1])}
    detections = {"im": detections_of([[1, 1, 5, 5]], [0.9], [0])}
    result = evaluate_voc(ground_truth, detections, ["found", "missed"])
    assert result.class_ap("11point").tolist() == pytest.approx([1, 0])
    assert result.mean_ap("11point", 0.5) == pytest.approx(0.5)


def test_wrong_metric_and_threshold_are_named():
    result = evaluate_voc({}, {}, ["a"], iou_thresholds=[0.5])
    with pytest.raises(IONError, match="12point"):
        result.class_ap("12point")
    with pytest.raises(IONError, match="0.75"):
        result.mean_ap("area", 0.75)
    with pytest.raises(IONError, match="12point"):
        voc_average_precision(np.zeros(1), np.zeros(1), "12point")


def test_is_fast_enough_to_run_during_training():
    rng = np.random.default_rng(0)
    ground_truth, detections = {}, {}
    for image in range(72):
        corner = rng.uniform(1, 500, size=(100, 2))
        boxes = np.hstack([corner, corner + rng.uniform(10, 100, size=(100, 2))])
        ground_truth[image] = truth_of(boxes[:14].round(), rng.integers(0, 3, size=14))
        detections[image] = detections_of(boxes, rng.random(100), rng.integers(0, 3, size=100))
    start = time.process_time()
    evaluate_voc(ground_truth, detections, ["a", "b", "c"])
    assert time.process_time() - start < 1.5
