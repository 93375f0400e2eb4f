"""Average precision as PASCAL VOC defines it, for many IoU thresholds at once."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import IONError
from .image_boxes import Detections, GroundTruth
from .voc_matching import match_class, precision_recall

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
        ground_truth: image id -> its labeled boxes, in the devkit's convention.
        detections: image id -> its detections, likewise.
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
