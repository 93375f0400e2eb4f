"""Averaging predictions over an image and its left-right mirror (post-competition row of Table 3).

The paper says that the results of both are averaged, not how. Here the same proposals are pooled
from both images: class probabilities are averaged, and so are the corners of the regressed boxes
after those of the mirrored image are mirrored back.
"""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.structures import Boxes
from torch import Tensor

from .box_refinement import Predictions


def mirror_boxes(boxes: Sequence[Boxes], sizes: Sequence[tuple[int, int]]) -> list[Boxes]:
    """Mirror the boxes of each image, of (height, width) pixels without padding, left to right."""
    return [Boxes(_mirror(b.tensor, width)) for b, (_, width) in zip(boxes, sizes)]


def average_with_mirrored(
    predictions: Predictions, mirrored: Predictions, sizes: Sequence[tuple[int, int]]
) -> Predictions:
    """Average the boxes and probabilities of images with those of their mirrors.

    ``mirrored`` are for the mirrored boxes in the same order; ``sizes`` as in :func:`mirror_boxes`.
    """
    widths = [width for _, width in sizes]
    boxes = [(a + _mirror(b, w)) / 2 for a, b, w in zip(predictions[0], mirrored[0], widths)]
    scores = [(a + b) / 2 for a, b in zip(predictions[1], mirrored[1])]
    return boxes, scores


def _mirror(boxes: Tensor, width: int) -> Tensor:
    """Mirror rows of one or more boxes x0 y0 x1 y1 each, (R, K*4)."""
    corners = boxes.reshape(-1, 4)
    mirrored = corners[:, [2, 1, 0, 3]]
    mirrored[:, 0::2] = width - mirrored[:, 0::2]
    return mirrored.reshape(boxes.shape)
