"""Which images a detector does well on, and which badly."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

from ion_d2.evaluation.image_boxes import Detections, GroundTruth
from ion_d2.evaluation.voc_ap import judge, match_class


class Count(NamedTuple):
    """Detections of one image against its labeled boxes."""

    right: int  # boxes that were found
    wrong: int  # detections of no box, or of one that a surer detection has found
    missed: int  # boxes that were not found

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 1 where there was nothing to find or to see."""
        total = 2 * self.right + self.wrong + self.missed
        return 2 * self.right / total if total else 1.0


def count_image(truth: GroundTruth, found: Detections, score: float) -> Count:
    """Compare detections from a score on with labels, as the VOC devkit does at IoU 0.5.

    Counts are over all classes; difficult boxes count neither way.
    """
    sure = found.scores >= score
    found = Detections(found.boxes[sure], found.scores[sure], found.classes[sure])
    right = wrong = missed = 0
    for class_index in sorted({*truth.classes.tolist(), *found.classes.tolist()}):
        matches = match_class({0: truth}, {0: found}, class_index)
        is_right, ignored = judge(matches, 0.5)
        right += int(is_right.sum())
        wrong += int((~is_right & ~ignored).sum())
        missed += matches.num_positives - int(is_right.sum())
    return Count(right, wrong, missed)


def choose_images(
    counts: dict[Hashable, Count], best: int, typical: int, worst: int
) -> dict[str, list[Hashable]]:
    """Choose images to look at by their F1, none twice.

    Among equals, those with more to see come first. At most half of the images are called worst.

    Args:
        counts: image id -> its counts.
        best: how many of the highest F1 to take, and of the others likewise.
        typical: from the middle.
        worst: of the lowest.

    Returns:
        "best", "typical" and "worst" -> image ids, fewer where there are not enough images.
    """
    worst = min(worst, len(counts) // 2)
    order = sorted(counts, key=lambda key: (-counts[key].f1, -sum(counts[key])))
    lowest = sorted(counts, key=lambda key: (counts[key].f1, -sum(counts[key])))[:worst]
    left = [key for key in order if key not in lowest]
    highest, left = left[:best], left[best:]
    start = max(0, (len(left) - typical) // 2)
    return {"best": highest, "typical": left[start : start + typical], "worst": lowest}
