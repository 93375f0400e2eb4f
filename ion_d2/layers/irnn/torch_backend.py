"""The spatial IRNN in plain PyTorch, for any device: sweeps without an autograd graph.

All of it works on maps laid out channels last, [N, H, W, C], where a line of cells is a set of
contiguous runs in both axes: a step then needs no copy, and neither does the whole sweep. Cells
outside an image's valid area are set to 0 before the sweeps. A state that is 0 stays 0 over them,
so none reaches the valid area from outside; what leaves the area is set to 0 afterwards. Backward
needs nothing but the output: the ReLU passes a gradient where the state is above 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .arguments import compute_dtype, transition_kind, valid_mask
from .torch_full import full_backward, full_forward
from .torch_lines import elementwise_backward, elementwise_forward


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
            elementwise_forward(source, weight, directions, out)
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
            grad_weight = elementwise_backward(grads, states, converted, directions, total)
    if weight is not None and grad_weight is not None:
        grad_weight = grad_weight.to(weight.dtype)
    return total.to(output.dtype).permute(0, 3, 1, 2), grad_weight
