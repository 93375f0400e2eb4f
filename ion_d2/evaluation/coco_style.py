"""COCO's average precision and recall, split by object size, for data in any format."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ..data.coco_file import read_coco_file
from ..errors import IONError
from .image_boxes import Detections, GroundTruth

COCO_METRICS = (
    *("AP", "AP50", "AP75", "APs", "APm", "APl"),
    *("AR1", "AR10", "AR100", "ARs", "ARm", "ARl"),
)
"""Names of COCO's twelve figures, in the order in which pycocotools gives them."""


def evaluate_coco_style(
    ground_truth: Mapping[Hashable, GroundTruth],
    detections: Mapping[Hashable, Detections],
    class_names: Sequence[str],
) -> dict[str, float]:
    """COCO's twelve box figures, see :func:`coco_figures`, by :func:`coco_style_evaluation`."""
    return coco_figures(coco_style_evaluation(ground_truth, detections, class_names))


def coco_style_evaluation(
    ground_truth: Mapping[Hashable, GroundTruth],
    detections: Mapping[Hashable, Detections],
    class_names: Sequence[str],
) -> COCOeval:
    """Evaluate boxes by pycocotools.

    Two things differ from COCO proper, because VOC-format data has neither masks nor crowds. An
    object's size (small below 32x32 pixels, large from 96x96 on) is the area of its box, not of its
    mask. A difficult box is treated as COCO treats a crowd: it need not be found, and detections of
    its class that lie mostly inside it are not counted against the detector.

    Args:
        ground_truth: image id -> its labeled boxes, 0-based with exclusive right and bottom edge.
        detections: image id -> its detections, likewise. Every image must be in `ground_truth`.
        class_names: by class index.
    """
    numbers = {image_id: number for number, image_id in enumerate(ground_truth, start=1)}
    content = {
        "images": [{"id": number} for number in numbers.values()],
        "categories": [{"id": index, "name": name} for index, name in enumerate(class_names)],
        "annotations": [
            {**_box_fields(box, category), "image_id": numbers[key], "iscrowd": int(difficult)}
            for key, truth in ground_truth.items()
            for box, category, difficult in zip(truth.boxes, truth.classes, truth.difficult)
        ],
    }
    results = [
        {**_box_fields(box, category), "image_id": numbers[key], "score": float(score)}
        for key, found in detections.items()
        for box, score, category in zip(found.boxes, found.scores, found.classes)
    ]
    return evaluate_coco_content(content, results)


def evaluate_coco_file(json_file: str, results: Sequence[dict[str, Any]]) -> COCOeval:
    """Evaluate boxes against an annotation file, for scripts; see :func:`evaluate_coco_content`.

    Raises:
        IONError: the file cannot be used, or has no "annotations".
    """
    content = read_coco_file(json_file)
    if "annotations" not in content:
        raise IONError(f"{json_file} has no 'annotations' to evaluate with; name a labeled file.")
    return evaluate_coco_content(content, results)


def evaluate_coco_content(
    content: Mapping[str, Any],
    results: Sequence[dict[str, Any]],
    image_ids: Iterable[Hashable] | None = None,
) -> COCOeval:
    """Evaluate boxes against annotations in COCO's format, as COCO itself does.

    Args:
        content: normalized, see :func:`ion_d2.data.coco_file.normalize_coco`.
        results: detections in COCO's format, "bbox" as (x, y, width, height); there may be none.
        image_ids: the images to evaluate; None for all.
    """
    boxes = [{**r, "area": r["bbox"][2] * r["bbox"][3], "iscrowd": 0} for r in results]
    # pycocotools prints as it goes; what it prints is in the result.
    with contextlib.redirect_stdout(io.StringIO()):
        truth, found = _coco(content, content["annotations"]), _coco(content, boxes)
        evaluation = COCOeval(truth, found, "bbox")
        if image_ids is not None:
            evaluation.params.imgIds = list(image_ids)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def coco_figures(evaluation: COCOeval) -> dict[str, float]:
    """The `COCO_METRICS` of an evaluation in percent; NaN where there is no object to be found.

    AP (IoU 0.50:0.95), AP50, AP75, AP of small, medium and large objects; AR with 1, 10 and 100
    detections an image, AR by size.
    """
    return {
        name: 100 * float(value) if value >= 0 else float("nan")
        for name, value in zip(COCO_METRICS, evaluation.stats)
    }


def _coco(content: Mapping[str, Any], annotations: Sequence[dict[str, Any]]) -> COCO:
    """A COCO data set in memory. (COCO.loadRes would do for detections, but not for none.)"""
    coco = COCO()
    # Ids start at 1: pycocotools marks a match by the id, and takes 0 for "not matched".
    numbered = [{**a, "id": number} for number, a in enumerate(annotations, start=1)]
    sets = {key: content[key] for key in ("images", "categories")}
    coco.dataset = {**sets, "annotations": numbered}
    coco.createIndex()
    return coco


def _box_fields(box: np.ndarray, category: int) -> dict[str, Any]:
    x0, y0, x1, y1 = box.tolist()
    width, height = x1 - x0, y1 - y0
    return {"bbox": [x0, y0, width, height], "area": width * height, "category_id": int(category)}
