"""The definition of the spatial IRNN: one direction and one line of cells at a time.

Every other implementation is tested against this one. It favors being read over being fast.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..precision import narrow
from .arguments import DIRECTIONS, TRAVEL, check_arguments, compute_dtype, valid_mask


def spatial_irnn_reference(
    x: Tensor,
    weight: Tensor | None = None,
    *,
    directions: Sequence[str] = DIRECTIONS,
    sizes: Tensor | None = None,
) -> Tensor:
    """Sweep a recurrent ReLU network over a map in several directions (paper sec. 3.2, Eq. 1).

    Arguments, result and errors are those of :func:`ion_d2.layers.spatial_irnn`.
    """
    check_arguments(x, weight, directions, sizes)
    dtype = compute_dtype(x.dtype)
    mask = None if sizes is None else valid_mask(sizes, x.shape[2], x.shape[3], x.device)
    with torch.autocast(x.device.type, enabled=False):
        swept = [
            _sweep(x.to(dtype), None if weight is None else weight[d].to(dtype), direction, mask)
            for d, direction in enumerate(directions)
        ]
        return narrow(torch.cat(swept, dim=1), x.dtype)


def _sweep(x: Tensor, weight: Tensor | None, direction: str, mask: Tensor | None) -> Tensor:
    axis, backwards = TRAVEL[direction]
    order: Sequence[int] = range(x.shape[axis])
    if backwards:
        order = order[::-1]
    lines: list[Tensor] = [x.new_empty(0)] * len(order)
    state = torch.zeros_like(x.select(axis, 0)) if len(order) else x  # [N, C, lines]
    for position in order:
        state = torch.relu(_transition(state, weight) + x.select(axis, position))
        if mask is not None:
            state = torch.where(mask.select(axis, position), state, torch.zeros_like(state))
        lines[position] = state
    return torch.stack(lines, dim=axis) if lines else x


def _transition(state: Tensor, weight: Tensor | None) -> Tensor:
    """Apply the hidden-to-hidden weight to a state, [N, C, lines]."""
    if weight is None:
        return state
    if weight.dim() == 1:
        return weight[None, :, None] * state
    return torch.einsum("ij,njl->nil", weight, state)
