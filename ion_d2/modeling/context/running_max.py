"""A recurrence that keeps the largest value so far, in place of the paper's rectified sum."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...layers.irnn import TRAVEL
from ...layers.irnn.arguments import keep_valid, valid_mask


def running_max(x: Tensor, directions: Sequence[str], sizes: Tensor | None = None) -> Tensor:
    """Sweep a maximum over a map in several directions.

    Along each direction of travel, ``h_t = max(h_{t-1}, x_t)``, from ``h_1 = x_1``. A sum over a
    sweep drowns what a single cell says among the noise of all others; a maximum keeps it.

    Arguments and result are those of :func:`ion_d2.layers.spatial_irnn` without a weight.
    """
    if sizes is not None:
        x = x.masked_fill(~valid_mask(sizes, x.shape[2], x.shape[3], x.device), float("-inf"))
    return keep_valid(torch.cat([_sweep(x, name) for name in directions], dim=1), sizes)


def _sweep(x: Tensor, direction: str) -> Tensor:
    axis, backwards = TRAVEL[direction]
    if backwards:
        return x.flip(axis).cummax(axis).values.flip(axis)
    return x.cummax(axis).values
