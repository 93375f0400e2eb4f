"""The spatial IRNN on any device: both directions of an axis step together, all lines at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .arguments import DIRECTIONS, check_arguments, compute_dtype, valid_mask

_REVERSED = ("left", "up")
_AXES = (("right", "left"), ("down", "up"))


def spatial_irnn(
    x: Tensor,
    weight: Tensor | None = None,
    *,
    directions: Sequence[str] = DIRECTIONS,
    sizes: Tensor | None = None,
) -> Tensor:
    """Sweep a recurrent ReLU network over a map in several directions (paper sec. 3.2).

    Along each direction of travel, ``h_t = relu(weight[d] @ h_{t-1} + x_t)`` from ``h_0 = 0`` (Eq.
    1); without a weight it is ``h_t = relu(h_{t-1} + x_t)`` (Eq. 2). "right" starts at column 0,
    "left" at the last column, "down" at row 0 and "up" at the last row. The recurrence runs in
    float32 at least, also under autocast. Gradients flow to ``x`` and ``weight``.

    Args:
        x: (N, C, H, W), floating point, any memory layout; N, H or W may be 0.
        weight: None for the identity, (D, C) for one factor a channel, or (D, C, C) for a full
            matrix in each of the D directions.
        directions: D of "right", "left", "down", "up", in the order wanted in the output.
        sizes: (N, 2) integers, the valid (height, width) of each image in cells, counted from the
            top left corner. Cells outside are absent: no state crosses them and the output is 0
            there.

    Returns:
        (N, D * C, H, W) of x's type, direction-major in the order given.

    Raises:
        TypeError: ``x`` or ``weight`` is not floating point, or ``sizes`` not integer.
        ValueError: a shape, device, direction or size does not fit.

    Example:
        >>> spatial_irnn(torch.ones(1, 1, 1, 3), directions=("right",))
        tensor([[[[1., 2., 3.]]]])
    """
    check_arguments(x, weight, directions, sizes)
    dtype = compute_dtype(x.dtype)
    with torch.autocast(x.device.type, enabled=False):
        swept: dict[int, Tensor] = {}
        for axis in _AXES:
            chosen = [d for d, name in enumerate(directions) if name in axis]
            if chosen:
                swept.update(_sweep_axis(x.to(dtype), weight, directions, chosen, sizes))
        return torch.cat([swept[d] for d in range(len(directions))], dim=1).to(x.dtype)


def _sweep_axis(
    x: Tensor,
    weight: Tensor | None,
    directions: Sequence[str],
    chosen: list[int],
    sizes: Tensor | None,
) -> dict[int, Tensor]:
    """Run the chosen directions, all along one axis, and return [N, C, H, W] for each."""
    # Steps first, channels last: a step reads one contiguous block. [T, N, L, C]
    permutation = (3, 0, 2, 1) if directions[chosen[0]] in _AXES[0] else (2, 0, 3, 1)
    sequence = x.permute(*permutation)
    if sequence.shape[0] == 0:
        return {d: x for d in chosen}
    reverse = [directions[d] in _REVERSED for d in chosen]
    stacked = _orient(sequence, reverse)
    mask = None
    if sizes is not None:
        valid = valid_mask(sizes, x.shape[2], x.shape[3], x.device).permute(*permutation)
        mask = _orient(valid, reverse)
    states = _recur(stacked, None if weight is None else weight[chosen].to(x.dtype), mask)
    inverse = [permutation.index(axis) for axis in range(4)]
    result = {}
    for k, d in enumerate(chosen):
        line = states[:, k].flip(0) if reverse[k] else states[:, k]
        result[d] = line.reshape(sequence.shape).permute(*inverse)
    return result


def _orient(sequence: Tensor, reverse: list[bool]) -> Tensor:
    """Bring [T, N, L, C] into the order of travel of each direction: [T, D, N * L, C]."""
    flat = sequence.reshape(sequence.shape[0], -1, sequence.shape[-1])
    return torch.stack([flat.flip(0) if r else flat for r in reverse], dim=1)


def _recur(sequence: Tensor, weight: Tensor | None, mask: Tensor | None) -> Tensor:
    """Step through [T, D, B, C]; ``weight`` is None, [D, C] or [D, C, C]."""
    transposed = weight.transpose(1, 2) if weight is not None and weight.dim() == 3 else None
    states = []
    state = torch.zeros_like(sequence[0])
    for step in range(sequence.shape[0]):
        if weight is None:
            total = state + sequence[step]
        elif transposed is None:
            total = torch.addcmul(sequence[step], state, weight[:, None])
        else:
            total = torch.baddbmm(sequence[step], state, transposed)
        state = torch.relu(total)
        if mask is not None:
            state = state.masked_fill(~mask[step], 0.0)
        states.append(state)
    return torch.stack(states)
