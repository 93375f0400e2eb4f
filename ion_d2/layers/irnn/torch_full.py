"""Sweeps with a full hidden-to-hidden matrix: the directions of an axis step together.

A step of all directions along one axis is one batched matrix product. Backward runs the same
products in reverse time; the gradient of the matrices is one product a chunk of steps, over some
hundred rows, so that it costs neither a product a step nor a buffer for all steps. Maps are read
and written by the chunk too: a line alone is too little for PyTorch to share among the cores.

Maps are [N, H, W, C], the states of D directions and their gradients [N, H, W, D, C], the matrices
[D, C, C] in the type in which the recurrence runs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .arguments import TRAVEL

# Numbers of one direction in a chunk: enough for PyTorch to share among the cores and for a product
# of full speed, few enough to stay in a processor's cache.
_CHUNK_NUMBERS = 320 * 512


def _by_axis(directions: Sequence[str]) -> list[range]:
    """Positions of directions that step together: they travel along one axis, evenly spaced.

    A range, unlike a list, picks its matrices without a copy. Of the four directions in any order,
    the two of an axis are one.
    """
    groups: list[range] = []
    for axis in (3, 2):
        chosen = [d for d, name in enumerate(directions) if TRAVEL[name].axis == axis]
        pairs = zip(chosen[::2], chosen[1::2])
        groups += [range(first, second + 1, second - first) for first, second in pairs]
        groups += [range(chosen[-1], chosen[-1] + 1)] if len(chosen) % 2 else []
    return groups


def _of(weight: Tensor, chosen: range) -> Tensor:
    """A view of the matrices of some directions."""
    return weight[chosen.start : chosen.stop : chosen.step]


def full_forward(source: Tensor, weight: Tensor, directions: Sequence[str], out: Tensor) -> None:
    """Fill ``out``, of the source's type, with the states."""
    for chosen in _by_axis(directions):
        inputs = [_Lines(source, directions[d]) for d in chosen]
        outputs = [_Lines(out[..., d, :], directions[d]) for d in chosen]
        _forward_axis(inputs, _of(weight, chosen), outputs)


def _forward_axis(inputs: list[_Lines], weight: Tensor, outputs: list[_Lines]) -> None:
    if inputs[0].maps.numel() == 0:
        return
    length = len(inputs[0])
    chunk = _chunk_steps(inputs[0])
    transposed = weight.transpose(1, 2)
    # Of the step before a chunk and of its own. Dense at every step: with gaps between its items, a
    # batched product runs one by one.
    states = weight.new_zeros(chunk + 1, len(inputs), *inputs[0].shape)  # [K + 1, D, N, L, C]
    rows = states.flatten(2, 3)
    for start in range(0, length, chunk):
        steps = min(chunk, length - start)
        for d, lines in enumerate(inputs):
            lines.read(start, states[1 : steps + 1, d])
        for k in range(steps):
            rows[k + 1].baddbmm_(rows[k], transposed).relu_()
        for d, lines in enumerate(outputs):
            lines.write(start, states[1 : steps + 1, d])
        states[0].copy_(states[steps])


def full_backward(
    grads: Tensor, states: Tensor, weight: Tensor, directions: Sequence[str], total: Tensor
) -> Tensor:
    """Add the gradients of the map to ``total`` and return that of the matrices."""
    grad_weight = torch.zeros_like(weight)
    for chosen in _by_axis(directions):
        into, out_of = (
            [_Lines(maps[..., d, :], directions[d]) for d in chosen] for maps in (grads, states)
        )
        totals = [_Lines(total, directions[d]) for d in chosen]
        _backward_axis(into, out_of, _of(weight, chosen), totals, _of(grad_weight, chosen))
    return grad_weight


def _backward_axis(
    grads: list[_Lines],
    states: list[_Lines],
    weight: Tensor,
    totals: list[_Lines],
    grad_weight: Tensor,
) -> None:
    if totals[0].maps.numel() == 0:
        return
    chunk = _chunk_steps(totals[0])
    # Of the steps of a chunk and of the one after it.
    deltas = weight.new_empty(chunk + 1, len(totals), *totals[0].shape)  # [K + 1, D, N, L, C]
    rows = deltas.flatten(2, 3)
    # Of the step before a chunk and of its own.
    around = weight.new_empty(len(totals), chunk + 1, *totals[0].shape)  # [D, K + 1, N, L, C]
    after = torch.zeros_like(deltas[0])
    for stop in range(len(totals[0]), 0, -chunk):
        start = max(0, stop - chunk)
        steps = stop - start
        for d in range(len(totals)):
            grads[d].read(start, deltas[:steps, d])
            states[d].read(start - 1, around[d, : steps + 1])
        deltas[steps].copy_(after)
        for k in reversed(range(steps)):
            rows[k].baddbmm_(rows[k + 1], weight)
            pass_through_relu(deltas[k], around[:, k + 1])
        for d, lines in enumerate(totals):
            lines.add(start, deltas[:steps, d])
            own = deltas[:steps, d].flatten(0, 2)
            grad_weight[d].addmm_(own.t(), around[d, :steps].flatten(0, 2))
        after.copy_(deltas[0])


def _chunk_steps(lines: _Lines) -> int:
    return max(1, min(len(lines), _CHUNK_NUMBERS // lines.shape.numel()))


def pass_through_relu(delta: Tensor, state: Tensor) -> None:
    """Set a gradient to 0, in place, where the ReLU's output is 0."""
    if delta.dtype == state.dtype:
        torch.ops.aten.threshold_backward.grad_input(delta, state, 0, grad_input=delta)
    else:
        delta.masked_fill_(state <= 0, 0.0)


class _Lines:
    """The lines of a map in the order in which a direction meets them, some at a time."""

    def __init__(self, maps: Tensor, direction: str) -> None:
        axis, self._backwards = TRAVEL[direction]
        self.maps = maps.movedim(axis - 1, 0)  # [T, N, L, C]
        self.shape = self.maps.shape[1:]

    def __len__(self) -> int:
        return self.maps.shape[0]

    def read(self, start: int, into: Tensor) -> None:
        """Copy the lines from the step ``start`` on into [K, N, L, C]; the step -1 is 0."""
        if start < 0:
            into[0].zero_()
            start, into = 0, into[1:]
        into.copy_(self._turned(self._part(start, len(into))))

    def write(self, start: int, lines: Tensor) -> None:
        """Overwrite the lines from the step ``start`` on by [K, N, L, C]."""
        self._part(start, len(lines)).copy_(self._turned(lines))

    def add(self, start: int, lines: Tensor) -> None:
        """Add [K, N, L, C] to the lines from the step ``start`` on."""
        self._part(start, len(lines)).add_(self._turned(lines))

    def _part(self, start: int, count: int) -> Tensor:
        return self.maps.narrow(0, len(self) - start - count if self._backwards else start, count)

    def _turned(self, lines: Tensor) -> Tensor:
        return lines.flip(0) if self._backwards else lines
