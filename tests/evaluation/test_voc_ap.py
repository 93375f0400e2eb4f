"""VOC average precision against Detectron2's voc_eval, pixel counting and values found by hand."""

from __future__ import annotations

import functools
import time
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from box_helpers import detections_of, truth_of
from detectron2.evaluation import pascal_voc_evaluation
from voc_folder import annotation_xml, object_xml

from ion_d2.errors import IONError
from ion_d2.evaluation.voc_ap import (
    COCO_THRESHOLDS,
    evaluate_voc,
    match_class,
    precision_recall,
    voc_average_precision,
)

BCCD = Path(__file__).resolve().parents[2] / "../shared/data/bccd/VOC2007"
CLASSES = ["cat", "dog", "cow", "absent", "unlabeled"]


def write_xml(path, truth, class_names):
    fields = "<pose>Unspecified</pose><truncated>0</truncated><difficult>{}</difficult>"
    objects = [
        object_xml(class_names[category], [int(v) for v in box], fields.format(int(difficult)))
        for box, category, difficult in zip(*truth)
    ]
    path.write_text(annotation_xml(objects))


@pytest.fixture
def voc_eval(monkeypatch):
    """Detectron2's, whose sort is not stable: ties then rank by chance, and so does the AP."""

    def call(*arguments):
        with monkeypatch.context() as patch, np.errstate(invalid="ignore"):
            stable = functools.partial(np.argsort, kind="stable")
            patch.setattr(pascal_voc_evaluation.np, "argsort", stable)
            return pascal_voc_evaluation.voc_eval(*arguments)

    return call


def write_files(folder, annotations, detections, class_names):
    """The files that it reads; its first arguments."""
    (folder / "split.txt").write_text("\n".join(detections))
    for index, name in enumerate(class_names):
        lines = [
            " ".join([image_id, repr(float(score)), *(repr(float(v)) for v in box)])
            for image_id, found in detections.items()
            for box, score, category in zip(*found)
            if category == index
        ]
        (folder / f"det_{name}.txt").write_text("\n".join(lines))
    return str(folder / "det_{}.txt"), str(annotations), str(folder / "split.txt")


def evaluated(images):
    """Boxes of the devkit's convention in ours: 0-based, right and bottom edge exclusive."""
    shift = np.array([1.0, 1.0, 0.0, 0.0])
    return {key: image._replace(boxes=image.boxes - shift) for key, image in images.items()}


def detectron2_ap(voc_eval, files, class_names):
    """AP of every class and threshold: metric -> (C, T)."""
    return {
        metric: np.array(
            [
                [voc_eval(*files, name, t, metric == "11point")[2] for t in COCO_THRESHOLDS]
                for name in class_names
            ]
        )
        for metric in ("11point", "area")
    }


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
def test_equals_detectron2_on_random_scenes(seed, tmp_path, voc_eval):
    ground_truth, detections = random_scenes(seed)
    for image_id, truth in ground_truth.items():
        write_xml(tmp_path / f"{image_id}.xml", truth, CLASSES)
    files = write_files(tmp_path, tmp_path / "{}.xml", detections, CLASSES)
    theirs = detectron2_ap(voc_eval, files, CLASSES)
    result = evaluate_voc(evaluated(ground_truth), evaluated(detections), CLASSES)
    for metric, table in theirs.items():
        assert 0.05 < table[:3].mean() < 0.95  # else the scenes would prove nothing
        np.testing.assert_allclose(result.ap[metric][:3], table[:3], rtol=0, atol=1e-14)
        assert np.isnan(result.ap[metric][3:]).all()
    marked = [t.classes[t.difficult] for t in ground_truth.values()]
    counts = np.bincount(np.concatenate(marked), minlength=len(CLASSES))
    assert result.num_difficult.tolist() == counts.tolist()
    assert result.num_positives[3:].tolist() == [0, 0]
    recall, precision, _ = voc_eval(*files, "dog", 0.5)
    matches = match_class(evaluated(ground_truth), evaluated(detections), 1)
    ours = precision_recall(matches, 0.5)
    np.testing.assert_array_equal(ours, [precision, recall])


@pytest.mark.skipif(not BCCD.is_dir(), reason="the BCCD data set is not at ../shared/data")
def test_equals_detectron2_on_bccd(tmp_path, voc_eval):
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
    files = write_files(tmp_path, BCCD / "Annotations/{}.xml", detections, names)
    theirs = detectron2_ap(voc_eval, files, names)
    result = evaluate_voc(evaluated(ground_truth), evaluated(detections), names)
    for metric, table in theirs.items():
        assert 0.1 < table.mean() < 0.9
        np.testing.assert_allclose(result.ap[metric], table, rtol=0, atol=1e-13)
        assert result.mean_ap(metric) == pytest.approx(table.mean(), abs=1e-13)
        assert result.mean_ap(metric, 0.75) == pytest.approx(table[:, 5].mean(), abs=1e-13)
    perfect = {i: detections_of(t.boxes, classes=t.classes) for i, t in ground_truth.items()}
    for table in evaluate_voc(evaluated(ground_truth), evaluated(perfect), names).ap.values():
        np.testing.assert_allclose(table, 1.0, rtol=0, atol=1e-12)


def test_hand_worked_case():
    # Two boxes to be found (A, B), one difficult (D), all 10x10 pixels and far apart.
    a, b, d = [0, 0, 10, 10], [100, 0, 110, 10], [200, 0, 210, 10]
    ground_truth = {"one": truth_of([a, d], difficult=[0, 1]), "two": truth_of([b])}
    half = [0, 0, 10, 5]  # 50 of A's 100 pixels: IoU exactly 0.5, which is not above 0.5
    first = detections_of([half, d, a, a, d], [0.9, 0.8, 0.7, 0.6, 0.55])
    detections = {"one": first, "two": detections_of([b], [0.5])}
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
    for metric in ("area", "11point"):
        assert voc_average_precision(np.zeros(0), np.zeros(0), metric) == 0


def test_classes_without_boxes_are_left_out_of_the_mean():
    ground_truth = {"im": truth_of([[1, 1, 5, 5], [9, 9, 20, 20]], [0, 2], [0, 1])}
    detections = {"im": detections_of([[1, 1, 5, 5]] * 2, [0.9, 0.8], [0, 1])}
    result = evaluate_voc(ground_truth, detections, ["found", "no truth", "difficult"])
    np.testing.assert_array_equal(result.class_ap("area", 0.5), [1, np.nan, np.nan])
    assert result.mean_ap("area") == 1
    assert result.num_images.tolist() == [1, 0, 0]
    nothing = evaluate_voc({}, {}, ["a"])
    assert np.isnan(nothing.mean_ap("11point", 0.5))
    # But a class that is missed counts as zero.
    ground_truth = {"im": truth_of([[1, 1, 5, 5], [9, 9, 20, 20]], [0, 1])}
    detections = {"im": detections_of([[1, 1, 5, 5]])}
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
