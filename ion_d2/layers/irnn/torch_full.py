"""Sweeps with a full hidden-to-hidden matrix: the directions of an axis step together.

A step of all directions along one axis is one batched matrix product. Backward runs the same
products in reverse time; the gradient of the matrices is summed over chunks of steps, each one
product over some hundred rows, so that it costs neither a product a step nor a buffer for all
steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .torch_lines import TRAVEL_DIM, lines_in_order, pass_through_relu

# Rows (cells of a line times steps) of one product for the gradient of a matrix: enough for its
# full speed, few enough to stay in a processor's cache.
_CHUNK_ROWS = 384


def _by_axis(directions: Sequence[str]) -> list[range]:
    """Positions of directions that step together: they travel along one axis, evenly spaced.

    A range, unlike a list, picks its matrices without a copy. Of the four directions in any order,
    the two of an axis are one.
    """
    groups: list[range] = []
    for dim in (2, 1):
        chosen = [d for d, name in enumerate(directions) if TRAVEL_DIM[name] == dim]
        pairs = zip(chosen[::2], chosen[1::2])
        groups += [range(first, second + 1, second - first) for first, second in pairs]
        groups += [range(chosen[-1], chosen[-1] + 1)] if len(chosen) % 2 else []
    return groups


def _of(weight: Tensor, chosen: range) -> Tensor:
    """A view of the matrices of some directions."""
    return weight[chosen.start : chosen.stop : chosen.step]


def full_forward(source: Tensor, weight: Tensor, directions: Sequence[str], out: Tensor) -> None:
    """Fill ``out`` with the states.

    Args:
        source: [N, H, W, C].
        weight: [D, C, C] in the type in which the recurrence runs.
        directions: D directions.
        out: [N, H, W, D, C] of the source's type, overwritten.
    """
    for chosen in _by_axis(directions):
        lines = [lines_in_order(source, directions[d]) for d in chosen]
        targets = [lines_in_order(out[..., d, :], directions[d]) for d in chosen]
        _forward_axis(lines, _of(weight, chosen), targets)


def _forward_axis(
    lines: list[Sequence[Tensor]], weight: Tensor, targets: list[Sequence[Tensor]]
) -> None:
    if not lines[0]:
        return
    transposed = weight.transpose(1, 2)
    state = weight.new_zeros(len(lines), *lines[0][0].shape)  # [D, N, L, C]
    following = torch.empty_like(state)
    for inputs, outputs in zip(zip(*lines), zip(*targets)):
        for buffer, line in zip(following, inputs):
            buffer.copy_(line)
        following.flatten(1, 2).baddbmm_(state.flatten(1, 2), transposed).relu_()
        for buffer, target in zip(following, outputs):
            target.copy_(buffer)
        state, following = following, state


def full_backward(
    grads: Tensor, states: Tensor, weight: Tensor, directions: Sequence[str], total: Tensor
) -> Tensor:
    """Add the gradients of the input to ``total`` and return that of the weight.

    Args:
        grads: [N, H, W, D, C], the gradient of the states.
        states: [N, H, W, D, C], what :func:`full_forward` wrote.
        weight: [D, C, C].
        directions: D directions.
        total: [N, H, W, C], added to.

    Returns:
        [D, C, C].
    """
    grad_weight = torch.zeros_like(weight)
    for chosen in _by_axis(directions):
        lines = [
            [lines_in_order(maps[..., d, :], directions[d]) for d in chosen]
            for maps in (grads, states)
        ]
        totals = [lines_in_order(total, directions[d]) for d in chosen]
        _backward_axis(*lines, _of(weight, chosen), totals, _of(grad_weight, chosen))
    return grad_weight


def _backward_axis(
    grads: list[Sequence[Tensor]],
    states: list[Sequence[Tensor]],
    weight: Tensor,
    totals: list[Sequence[Tensor]],
    grad_weight: Tensor,
) -> None:
    length = len(totals[0])
    if length == 0 or totals[0][0].numel() == 0:
        return
    chunk = _chunk_steps(totals[0][0], length)
    deltas = weight.new_empty(len(totals), chunk, *totals[0][0].shape)  # [D, K, N, L, C]
    before = torch.empty_like(deltas)
    after = torch.zeros_like(deltas[:, 0])
    own = torch.stack([lines[-1].to(weight.dtype) for lines in states])
    for t in reversed(range(length)):
        k = (length - 1 - t) % chunk
        for j in range(len(totals)):
            deltas[j, k].copy_(grads[j][t])
            before[j, k].copy_(states[j][t - 1]) if t > 0 else before[j, k].zero_()
        deltas[:, k].flatten(1, 2).baddbmm_(after.flatten(1, 2), weight)
        after = deltas[:, k]
        pass_through_relu(after, own)
        # What was before this step is the own state of the next.
        own = before[:, k]
        for j, total in enumerate(totals):
            total[t].add_(after[j])
        if k == chunk - 1 or t == 0:
            rows = deltas[:, : k + 1].flatten(1, 3)
            grad_weight.baddbmm_(rows.transpose(1, 2), before[:, : k + 1].flatten(1, 3))


def _chunk_steps(line: Tensor, length: int) -> int:
    """Steps in a chunk: two at least, since a step reads what the one before it wrote."""
    rows = line.shape[0] * line.shape[1]
    return max(2, min(length, _CHUNK_ROWS // rows))
