"""Precision against recall of each class."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from pycocotools.cocoeval import COCOeval

from ion_d2.evaluation.voc_ap import match_class, precision_recall

from .evaluated_run import Outcome

# Points of a curve that are drawn at most.
_MAX_POINTS = 300


class Curve(NamedTuple):
    """Precision and recall of a class at IoU 0.5, from the surest detection on."""

    recall: np.ndarray  # (n,) in 0..1, not decreasing
    precision: np.ndarray  # (n,) in 0..1
    sure: int | None  # index of the last point of at least the score asked for, if any


def voc_curve(outcome: Outcome, class_index: int, score: float) -> Curve | None:
    """Precision and recall after each detection, as the VOC devkit counts them.

    Returns:
        The curve, marked at a score; None if the class has no box to be found or no detection.
    """
    assert outcome.found is not None
    matches = match_class(outcome.truth, outcome.found, class_index)
    if not matches.num_positives or not len(matches.scores):
        return None
    precision, recall = precision_recall(matches, 0.5)
    count = int((matches.scores >= score).sum())
    return thin(Curve(recall, precision, count - 1 if count else None))


def coco_curve(evaluation: COCOeval, class_index: int, score: float) -> Curve | None:
    """Best precision at each of COCO's 101 recalls, for boxes of all sizes.

    Args:
        evaluation: one that was run.
        class_index: in the order of the category ids.
        score: what to mark.

    Returns:
        The curve, up to the highest recall that is reached; None as :func:`voc_curve`.
    """
    first = int(np.flatnonzero(np.isclose(evaluation.params.iouThrs, 0.5))[0])
    place = (first, slice(None), class_index, 0, -1)
    precision = evaluation.eval["precision"][place]
    reached = int((precision > 0).sum())  # 0 beyond the highest recall, -1 without any box
    if not reached:
        return None
    count = int((evaluation.eval["scores"][place][:reached] >= score).sum())
    recall = np.asarray(evaluation.params.recThrs)[:reached]
    return Curve(recall, precision[:reached], count - 1 if count else None)


def thin(curve: Curve) -> Curve:
    """Drop points of a long curve evenly; its ends and the marked point stay."""
    last = len(curve.recall) - 1
    kept = np.linspace(0, last, min(last + 1, _MAX_POINTS)).round().astype(int)
    if curve.sure is not None:
        kept = np.union1d(kept, [curve.sure])
    sure = None if curve.sure is None else int(np.searchsorted(kept, curve.sure))
    return Curve(curve.recall[kept], curve.precision[kept], sure)
