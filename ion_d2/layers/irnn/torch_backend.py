"""The spatial IRNN in plain PyTorch, for any device: sweeps without an autograd graph.

All of it works on maps laid out channels last, [N, H, W, C], where a line of cells is a set of
contiguous runs in both axes: a step then needs no copy, and neither does the whole sweep. Cells
outside an image's valid area are set to 0 before the sweeps. A state that is 0 stays 0 over them,
so none reaches the valid area from outside; what leaves the area is set to 0 afterwards. Backward
needs nothing but the output: the ReLU passes a gradient where the state is above 0.

Transitions that do not mix channels, identity and diagonal, are swept here, a line of cells a step.
The states of D directions and their gradients are [N, H, W, D, C].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .arguments import TRAVEL, compute_dtype, transition_kind, valid_mask
from .torch_full import full_backward, full_forward, pass_through_relu


def unavailable(device: torch.device, dtype: torch.dtype, kind: str) -> str | None:
    """This back-end serves every call."""
    return None


def memory_format(x: Tensor) -> torch.memory_format:
    """Channels last, whatever the layout of ``x`` is."""
    return torch.channels_last


def forward(
    x: Tensor, weight: Tensor | None, directions: Sequence[str], sizes: Tensor | None
) -> Tensor:
    """Sweep a map; see :mod:`ion_d2.layers.irnn.backends`."""
    count, channels, height, width = x.shape
    outside = None if sizes is None else ~valid_mask(sizes, height, width, x.device)
    if outside is not None:
        x = x.masked_fill(outside, 0.0)
    source = x.permute(0, 2, 3, 1).contiguous()
    out = x.new_empty(count, height, width, len(directions), channels)
    if weight is not None:
        weight = weight.to(compute_dtype(x.dtype))
    with torch.autocast(x.device.type, enabled=False):
        if weight is not None and transition_kind(weight) == "full":
            full_forward(source, weight, directions, out)
        else:
            _elementwise_forward(source, weight, directions, out)
    out = out.flatten(3).permute(0, 3, 1, 2)
    return out if outside is None else out.masked_fill_(outside, 0.0)


def backward(
    grad: Tensor,
    output: Tensor,
    weight: Tensor | None,
    directions: Sequence[str],
    sizes: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """Gradients of a sweep. ``sizes`` are not needed, since the output is 0 outside of them."""
    states = output.permute(0, 2, 3, 1).unflatten(3, (len(directions), -1))
    grads = grad.permute(0, 2, 3, 1).unflatten(3, (len(directions), -1))
    dtype = compute_dtype(output.dtype)
    total = torch.zeros_like(states[..., 0, :], dtype=dtype, memory_format=torch.contiguous_format)
    converted = None if weight is None else weight.to(dtype)
    grad_weight: Tensor | None
    with torch.autocast(output.device.type, enabled=False):
        if converted is not None and transition_kind(converted) == "full":
            grad_weight = full_backward(grads, states, converted, directions, total)
        else:
            grad_weight = _elementwise_backward(grads, states, converted, directions, total)
    if weight is not None and grad_weight is not None:
        grad_weight = grad_weight.to(weight.dtype)
    return total.to(output.dtype).permute(0, 3, 1, 2), grad_weight


def _lines_in_order(maps: Tensor, direction: str) -> tuple[Tensor, ...]:
    """Views of the lines of a map, [N, H or W, C], in the order in which a direction meets them."""
    axis, backwards = TRAVEL[direction]
    lines = maps.unbind(axis - 1)  # here channels come last
    return lines[::-1] if backwards else lines


def _elementwise_forward(
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


def _elementwise_backward(
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
