"""Which images are shown: counts by hand, and a choice without repetition."""

from __future__ import annotations

import numpy as np
import pytest
from box_helpers import detections_of as found
from box_helpers import truth_of

from ion_lab.report.ranking import Count, choose_images, count_image

SQUARES = np.array([[0, 0, 20, 20], [30, 0, 50, 20], [60, 0, 80, 20]], float)


def truth(classes, difficult=None):
    return truth_of(SQUARES[: len(classes)], classes, difficult)


def test_counts_by_hand():
    detections = found(
        [SQUARES[0], SQUARES[0], SQUARES[1], SQUARES[2], SQUARES[2]],
        [0.9, 0.8, 0.7, 0.6, 0.3],
        [0, 0, 0, 1, 2],
    )
    # Right: the first. Wrong: it again, the second box in a wrong class, the third too; the last is
    # not sure enough. Missed: the second and the third.
    count = count_image(truth([0, 1, 2]), detections, 0.5)
    assert count == Count(right=1, wrong=3, missed=2)
    assert count.f1 == pytest.approx(2 * (1 / 4) * (1 / 3) / (1 / 4 + 1 / 3))
    assert count_image(truth([0, 1, 2]), detections, 0.2) == Count(2, 3, 1)


def test_difficult_boxes_count_neither_way_and_images_may_be_empty():
    one, none = found([SQUARES[0]], [0.9]), found([])
    assert count_image(truth([0], [True]), one, 0.5) == Count(0, 0, 0)
    assert count_image(truth([0], [True]), none, 0.5).f1 == 1.0
    assert count_image(truth([]), none, 0.5).f1 == 1.0
    assert count_image(truth([]), one, 0.5) == Count(0, 1, 0)
    assert count_image(truth([0]), none, 0.5).f1 == 0.0


def test_choice_takes_extremes_and_the_middle():
    counts = {f"i{right}": Count(right, 10 - right, 0) for right in range(11)}
    counts["busy"] = Count(0, 40, 0)
    chosen = choose_images(counts, best=2, typical=2, worst=3)
    assert chosen["best"] == ["i10", "i9"]
    assert chosen["worst"] == ["busy", "i0", "i1"]
    assert chosen["typical"] == ["i6", "i5"]


@pytest.mark.parametrize("number, worst", [(0, 0), (1, 0), (3, 1), (5, 2)])
def test_few_images_are_shown_once(number, worst):
    counts = {index: Count(index, 1, 1) for index in range(number)}
    chosen = choose_images(counts, best=2, typical=2, worst=4)
    shown = [key for keys in chosen.values() for key in keys]
    assert sorted(shown) == list(range(number)) and len(chosen["worst"]) == worst
