"""Labeled and detected boxes of images as plain arrays, and whether every image has its own."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from typing import Any, NamedTuple

import numpy as np
from detectron2.structures import Instances

from ..data.outlines import corners_of
from ..errors import IONError


class GroundTruth(NamedTuple):
    """The G labeled boxes of one image; difficult ones count neither as found nor as missed."""

    boxes: np.ndarray  # (G, 4) float64: x0, y0, x1, y1, pixels from 0, x1 and y1 exclusive
    classes: np.ndarray  # (G,) int64 indices
    difficult: np.ndarray  # (G,) bool


class Detections(NamedTuple):
    """The N detected boxes of one image."""

    boxes: np.ndarray  # (N, 4) float64, likewise
    scores: np.ndarray  # (N,) float64, higher is surer
    classes: np.ndarray  # (N,) int64 indices


def ground_truth_from_dict(record: dict[str, Any]) -> GroundTruth:
    """Labeled boxes of a dataset dict.

    A box marked "difficult" or "iscrowd" becomes difficult; without "annotations" there is none.
    """
    found = record.get("annotations", [])
    difficult = [bool(a.get("difficult", 0) or a.get("iscrowd", 0)) for a in found]
    return GroundTruth(
        np.array([*map(corners_of, found)], dtype=np.float64).reshape(-1, 4),
        np.array([a["category_id"] for a in found], dtype=np.int64),
        np.array(difficult, dtype=bool),
    )


def detections_from_instances(instances: Instances) -> Detections:
    """Detected boxes of a detector's output."""
    return Detections(
        instances.pred_boxes.tensor.detach().cpu().double().numpy(),
        instances.scores.detach().cpu().double().numpy(),
        instances.pred_classes.detach().cpu().long().numpy(),
    )


def require_all(wanted: Collection[Hashable], seen: Collection[Hashable], of_what: str) -> None:
    """Raise IONError unless every image that is to be evaluated was run through the model."""
    missing = [image_id for image_id in wanted if image_id not in seen]
    if missing:
        raise IONError(
            f"{len(missing)} of {len(wanted)} images of {of_what} have not been run through the "
            f'model (first: "{missing[0]}"): run all of them, or give the records of those to '
            "evaluate."
        )
