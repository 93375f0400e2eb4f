"""Sweeps whose channels do not mix: identity and diagonal transitions, a line of cells a step.

Maps are [N, H, W, C], the states of D directions and their gradients [N, H, W, D, C].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .arguments import TRAVEL, compute_dtype


def _lines_in_order(maps: Tensor, direction: str) -> tuple[Tensor, ...]:
    """Views of the lines of a map, [N, H or W, C], in the order in which a direction meets them."""
    axis, backwards = TRAVEL[direction]
    lines = maps.unbind(axis - 1)  # here channels come last
    return lines[::-1] if backwards else lines


def elementwise_forward(
    source: Tensor, weight: Tensor | None, directions: Sequence[str], out: Tensor
) -> None:
    """Fill ``out``, of the source's type, with the states; ``weight`` is None or [D, C]."""
    for d, direction in enumerate(directions):
        lines = _lines_in_order(source, direction)
        targets = _lines_in_order(out[..., d, :], direction)
        _forward_lines(lines, None if weight is None else weight[d], targets)


def _forward_lines(
    lines: Sequence[Tensor], factor: Tensor | None, targets: Sequence[Tensor]
) -> None:
    if not lines:
        return
    state = torch.zeros_like(lines[0], dtype=compute_dtype(lines[0].dtype))
    in_place = state.dtype == targets[0].dtype
    buffer = state
    for line, target in zip(lines, targets):
        # Of a 16-bit map the state stays in float32 and only its copy is rounded.
        destination = target if in_place else buffer
        if factor is None:
            torch.add(state, line, out=destination)
        else:
            torch.addcmul(line, state, factor, out=destination)
        state = destination.relu_()
        if not in_place:
            target.copy_(state)


def elementwise_backward(
    grads: Tensor, states: Tensor, weight: Tensor | None, directions: Sequence[str], total: Tensor
) -> Tensor | None:
    """Add the gradients of the map to ``total`` and return that of the weight, None or [D, C]."""
    grad_weights = []
    for d, direction in enumerate(directions):
        given, swept = (_lines_in_order(maps[..., d, :], direction) for maps in (grads, states))
        totals = _lines_in_order(total, direction)
        grad_weight = _backward_lines(given, swept, None if weight is None else weight[d], totals)
        if grad_weight is not None:
            grad_weights.append(grad_weight)
    return None if weight is None else torch.stack(grad_weights)


def _backward_lines(
    grads: Sequence[Tensor],
    states: Sequence[Tensor],
    factor: Tensor | None,
    totals: Sequence[Tensor],
) -> Tensor | None:
    if not grads:
        return None if factor is None else torch.zeros_like(factor)
    delta = torch.zeros_like(totals[0], memory_format=torch.contiguous_format)
    products = None if factor is None else torch.zeros_like(delta)
    for t in reversed(range(len(grads))):
        if factor is None:
            delta.add_(grads[t])
        else:
            torch.addcmul(grads[t], delta, factor, out=delta)
        pass_through_relu(delta, states[t])
        totals[t].add_(delta)
        if products is not None and t > 0:
            products.addcmul_(delta, states[t - 1])
    return None if products is None else products.sum(dim=(0, 1))


def pass_through_relu(delta: Tensor, state: Tensor) -> None:
    """Set a gradient to 0, in place, where the ReLU's output is 0."""
    if delta.dtype == state.dtype:
        torch.ops.aten.threshold_backward.grad_input(delta, state, 0, grad_input=delta)
    else:
        delta.masked_fill_(state <= 0, 0.0)
