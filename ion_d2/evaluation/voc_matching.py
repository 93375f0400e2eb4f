"""Matching of detections with labeled boxes, as the PASCAL VOC devkit does it.

N are detections, G labeled boxes (of an image or of a class, as said). Boxes are (x0, y0, x1, y1)
in the devkit's convention: 1-based pixels, right and bottom edge inclusive, so a box is
x1 - x0 + 1 pixels wide. A detection is compared with the box of its class and image that it
overlaps most, whatever the IoU threshold, so overlaps are computed once and a threshold costs
little.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import NamedTuple

import numpy as np

from .image_boxes import Detections, GroundTruth


class ClassMatches(NamedTuple):
    """Detections of one class, surest first, each with the labeled box that it overlaps most."""

    scores: np.ndarray  # (N,) float64, descending
    overlaps: np.ndarray  # (N,) IoU with that box, -inf where the image has no box of the class
    truth_index: np.ndarray  # (N,) number of that box among all G of the class, -1 for none
    difficult: np.ndarray  # (G,) bool
    num_images: int  # with at least one box of the class that is not difficult

    @property
    def num_positives(self) -> int:
        """Boxes to be found: those that are not difficult."""
        return int(np.sum(~self.difficult))


def inclusive_iou(boxes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Intersection over union (N, G) of (N, 4) and (G, 4) boxes in the devkit's convention."""
    boxes, truth = boxes[:, None, :].astype(np.float64), truth[None, :, :].astype(np.float64)
    corner_min = np.maximum(boxes[..., :2], truth[..., :2])
    corner_max = np.minimum(boxes[..., 2:], truth[..., 2:])
    intersection = np.maximum(corner_max - corner_min + 1.0, 0.0).prod(axis=-1)
    return intersection / (_area(boxes) + _area(truth) - intersection)


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[..., 2:] - boxes[..., :2] + 1.0).prod(axis=-1)


def match_class(
    ground_truth: Mapping[Hashable, GroundTruth],
    detections: Mapping[Hashable, Detections],
    class_index: int,
) -> ClassMatches:
    """Compare every detection of a class with the labeled box that it overlaps most.

    Detections of equal score stay in the order given: that of the images in `detections`, then
    within an image. Images that `ground_truth` lacks have no boxes.
    """
    truth_of, difficult = _truth_of_class(ground_truth, class_index)
    parts = [
        _match_image(truth_of.get(image_id), found, found.classes == class_index)
        for image_id, found in detections.items()
    ]
    columns = [np.concatenate(column) for column in zip(*parts)] if parts else [np.zeros(0)] * 3
    order = np.argsort(-columns[0], kind="stable")
    scores, overlaps, truth_index = (column[order] for column in columns)
    spans = (slice(start, start + len(boxes)) for start, boxes in truth_of.values())
    num_images = sum(not difficult[span].all() for span in spans)
    return ClassMatches(scores, overlaps, truth_index.astype(np.int64), difficult, num_images)


def _truth_of_class(
    ground_truth: Mapping[Hashable, GroundTruth], class_index: int
) -> tuple[dict[Hashable, tuple[int, np.ndarray]], np.ndarray]:
    """Image id -> (running number of its first box, its boxes), and all boxes' difficult flags."""
    truth_of: dict[Hashable, tuple[int, np.ndarray]] = {}
    flags: list[np.ndarray] = [np.zeros(0, dtype=bool)]
    start = 0
    for image_id, truth in ground_truth.items():
        chosen = truth.classes == class_index
        if chosen.any():
            truth_of[image_id] = (start, truth.boxes[chosen])
            flags.append(truth.difficult[chosen].astype(bool))
            start += int(chosen.sum())
    return truth_of, np.concatenate(flags)


def _match_image(
    truth: tuple[int, np.ndarray] | None, found: Detections, chosen: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores of an image's chosen detections, their greatest IoU, and the box it is with."""
    scores = found.scores[chosen]
    if truth is None or not scores.size:
        return scores, np.full(len(scores), -np.inf), np.full(len(scores), -1)
    start, boxes = truth
    iou = inclusive_iou(found.boxes[chosen], boxes)
    return scores, iou.max(axis=1), start + iou.argmax(axis=1)


def judge(matches: ClassMatches, iou_threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Tell which detections are right and which do not count.

    A detection is right if its IoU is above the threshold (as in Detectron2; the devkit in MATLAB
    takes one that is equal to it, too) and no surer one took the same box; a second one on a box is
    wrong. One whose best box is difficult is neither.

    Returns:
        Two (N,) bool arrays: right, and neither right nor wrong.
    """
    hit = matches.overlaps > iou_threshold
    ignored = np.zeros_like(hit)
    ignored[hit] = matches.difficult[matches.truth_index[hit]]
    candidates = np.flatnonzero(hit & ~ignored)
    _, first = np.unique(matches.truth_index[candidates], return_index=True)
    right = np.zeros_like(hit)
    right[candidates[first]] = True
    return right, ignored


def precision_recall(matches: ClassMatches, iou_threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall after each detection, surest first; see :func:`judge`.

    Returns:
        (N,) arrays in 0..1. Recall is NaN if the class has no box to be found.
    """
    right, ignored = judge(matches, iou_threshold)
    num_right, num_counted = np.cumsum(right), np.cumsum(~ignored)
    # A leading run of ignored detections has counted nothing yet: precision 0, as in the devkit.
    precision = num_right / np.maximum(num_counted, 1)
    recall = num_right / (matches.num_positives or np.nan)
    return precision, recall
