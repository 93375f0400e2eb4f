"""Labeled and detected boxes of an image as plain arrays, taken from Detectron2's structures."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
from detectron2.structures import BoxMode, Instances


class GroundTruth(NamedTuple):
    """The labeled boxes of one image.

    Attributes:
        boxes: (G, 4) float64 array of (x0, y0, x1, y1) in pixels.
        classes: (G,) int array of class indices.
        difficult: (G,) bool array; such boxes count neither as found nor as missed.
    """

    boxes: np.ndarray
    classes: np.ndarray
    difficult: np.ndarray


class Detections(NamedTuple):
    """The detected boxes of one image.

    Attributes:
        boxes: (N, 4) float64 array of (x0, y0, x1, y1) in pixels.
        scores: (N,) float64 array, higher is surer.
        classes: (N,) int array of class indices.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray


_Boxes = TypeVar("_Boxes", GroundTruth, Detections)


def ground_truth_from_dict(record: dict[str, Any]) -> GroundTruth:
    """Labeled boxes of a dataset dict in Detectron2's standard format.

    Args:
        record: the dict of one image; without "annotations" it has no boxes. A box marked
            "difficult" or "iscrowd" becomes difficult.

    Returns:
        The boxes as the dict has them: 0-based, right and bottom edge exclusive.
    """
    annotations = record.get("annotations", [])
    boxes = [
        BoxMode.convert(list(a["bbox"]), a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations
    ]
    difficult = [bool(a.get("difficult", 0) or a.get("iscrowd", 0)) for a in annotations]
    return GroundTruth(
        np.array(boxes, dtype=np.float64).reshape(-1, 4),
        np.array([a["category_id"] for a in annotations], dtype=np.int64),
        np.array(difficult, dtype=bool),
    )


def detections_from_instances(instances: Instances) -> Detections:
    """Detected boxes of a detector's output.

    Args:
        instances: with "pred_boxes", "scores" and "pred_classes", on any device.

    Returns:
        The boxes as the detector gives them: 0-based, right and bottom edge exclusive.
    """
    return Detections(
        instances.pred_boxes.tensor.detach().cpu().double().numpy(),
        instances.scores.detach().cpu().double().numpy(),
        instances.pred_classes.detach().cpu().long().numpy(),
    )


def in_devkit_boxes(images: Mapping[Hashable, _Boxes]) -> dict[Hashable, _Boxes]:
    """The same boxes in the PASCAL VOC devkit's convention: 1-based, right and bottom inclusive.

    Args:
        images: image id -> boxes that are 0-based with exclusive right and bottom edge.

    Returns:
        Image id -> boxes whose left and top edge are one higher, the others unchanged.
    """
    shift = np.array([1.0, 1.0, 0.0, 0.0])
    return {
        image_id: image._replace(boxes=image.boxes + shift) for image_id, image in images.items()
    }
