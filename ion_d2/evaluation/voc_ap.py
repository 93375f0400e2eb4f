"""Average precision as PASCAL VOC defines it, for many IoU thresholds at once.

N are detections, G labeled boxes (of an image or of a class, as said). A detection is compared with
the box of its class and image that it overlaps most, whatever the IoU threshold, so overlaps are
computed once and a threshold costs little. The devkit's boxes are 1-based and include their last
pixel, so that they are x1 - x0 + 1 wide; ours are 0-based with exclusive right and bottom edge, and
x1 - x0 wide: the same boxes, of the same IoU.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torchvision.ops import box_iou

from ..errors import IONError
from .image_boxes import Detections, GroundTruth

METRICS = ("11point", "area")
"""Names of the two definitions of average precision: VOC 2007's and VOC 2010's."""

COCO_THRESHOLDS = tuple(percent / 100 for percent in range(50, 100, 5))
"""The ten IoU thresholds 0.50, 0.55, ..., 0.95."""


@dataclass(frozen=True)
class VOCResult:
    """Average precision of C classes at T IoU thresholds."""

    class_names: tuple[str, ...]
    iou_thresholds: tuple[float, ...]
    ap: dict[str, np.ndarray]  # by metric: (C, T) in 0..1, NaN without a box to be found
    num_positives: np.ndarray  # (C,) boxes that are not difficult
    num_difficult: np.ndarray  # (C,) difficult boxes
    num_images: np.ndarray  # (C,) images with a box that is not difficult

    def class_ap(self, metric: str, iou_threshold: float | None = None) -> np.ndarray:
        """AP (C,) of each class at one of the thresholds, or (None) the mean over all of them.

        Raises:
            IONError: for an unknown metric or a threshold that was not evaluated.
        """
        check_metric(metric)
        table = self.ap[metric]
        if iou_threshold is None:
            return table.mean(axis=1)
        columns = np.flatnonzero(np.isclose(self.iou_thresholds, iou_threshold))
        if not columns.size:
            raise IONError(
                f"AP at IoU {iou_threshold} was asked for, but only {list(self.iou_thresholds)} "
                "were evaluated."
            )
        return table[:, columns[0]]

    def mean_ap(self, metric: str, iou_threshold: float | None = None) -> float:
        """Mean of `class_ap` over the classes that have a box to be found; NaN if none has."""
        values = self.class_ap(metric, iou_threshold)
        values = values[~np.isnan(values)]
        return float(values.mean()) if values.size else float("nan")


def voc_average_precision(recall: np.ndarray, precision: np.ndarray, metric: str) -> float:
    """Average precision of one precision-recall curve of N points.

    Args:
        recall: (N,) array, not decreasing; N may be 0.
        precision: (N,) array.
        metric: "11point" for the mean of the best precision at recall of at least 0, 0.1, ..., 1
            (VOC 2007, and Table 1 of the ION paper); "area" for the area under the curve made
            monotone (VOC 2010 on).

    Returns:
        AP in 0..1; 0 for an empty curve, NaN if the recall is NaN.

    Raises:
        IONError: for another metric.
    """
    check_metric(metric)
    if np.isnan(recall).any():
        return float("nan")
    # Best precision at this recall or a higher one; a zero after the end stands for "recall never
    # reached".
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    if metric == "11point":
        # Multiples of 0.1 as in Detectron2, not tenths: 3 * 0.1 is a hair above 3 / 10.
        points = np.arange(0.0, 1.1, 0.1)
        return float(envelope[np.searchsorted(recall, points)].mean())
    return float(np.sum(np.diff(recall, prepend=0.0) * envelope[:-1]))


def evaluate_voc(
    ground_truth: Mapping[Hashable, GroundTruth],
    detections: Mapping[Hashable, Detections],
    class_names: Sequence[str],
    iou_thresholds: Sequence[float] = COCO_THRESHOLDS,
) -> VOCResult:
    """Average precision of every class, by both metrics, at every threshold.

    Args:
        ground_truth: image id -> its labeled boxes.
        detections: image id -> its detections.
        class_names: by class index.
        iou_thresholds: in 0..1.
    """
    every = [match_class(ground_truth, detections, index) for index in range(len(class_names))]
    table = np.full((len(METRICS), len(class_names), len(iou_thresholds)), np.nan)
    for row, matches in enumerate(every):
        if not matches.num_positives:
            continue
        for column, threshold in enumerate(iou_thresholds):
            precision, recall = precision_recall(matches, threshold)
            table[:, row, column] = [voc_average_precision(recall, precision, m) for m in METRICS]
    return VOCResult(
        class_names=tuple(class_names),
        iou_thresholds=tuple(iou_thresholds),
        ap=dict(zip(METRICS, table)),
        num_positives=np.array([m.num_positives for m in every], dtype=np.int64),
        num_difficult=np.array([m.difficult.sum() for m in every], dtype=np.int64),
        num_images=np.array([m.num_images for m in every], dtype=np.int64),
    )


def check_metric(metric: str) -> None:
    """Raise IONError unless `metric` is one of `METRICS`."""
    if metric not in METRICS:
        raise IONError(
            f'Unknown average precision "{metric}": set TEST.VOC_METRIC to one of {list(METRICS)}.'
        )


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
    iou = box_iou(torch.from_numpy(found.boxes[chosen]), torch.from_numpy(boxes)).numpy()
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
