"""A recurrence that keeps the largest value so far, in place of the paper's rectified sum."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...layers.irnn import TRAVEL
from ...layers.irnn.arguments import valid_mask


def running_max(x: Tensor, directions: Sequence[str], sizes: Tensor | None = None) -> Tensor:
    """Sweep a maximum over a map in several directions.

    Along each direction of travel, ``h_t = max(h_{t-1}, x_t)``, from ``h_1 = x_1``. A sum over a
    sweep drowns what a single cell says among the noise of all others; a maximum keeps it.

    Args:
        x: (N, C, H, W), floating point.
        directions: D of "right", "left", "down", "up", in the order of the output.
        sizes: (N, 2), valid (height, width) of each image in cells, or None for all of the map.
            Cells outside are absent: no state crosses them and the output is 0 there.

    Returns:
        (N, D * C, H, W) of x's type.
    """
    valid = None if sizes is None else valid_mask(sizes, x.shape[2], x.shape[3], x.device)
    if valid is not None:
        x = x.masked_fill(~valid, float("-inf"))
    states = torch.cat([_sweep(x, direction) for direction in directions], dim=1)
    return states if valid is None else states.masked_fill(~valid, 0.0)


def _sweep(x: Tensor, direction: str) -> Tensor:
    axis, backwards = TRAVEL[direction]
    if backwards:
        return x.flip(axis).cummax(axis).values.flip(axis)
    return x.cummax(axis).values
