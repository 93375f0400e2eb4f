"""The spatial IRNN for models that leave Python by TorchScript.

A script or a trace that used the registered operator could only be loaded where ion_d2 is
installed; this one is made of PyTorch's own operators. Its loops are TorchScript's, so that a trace
works for maps of any size.
"""

from typing import Optional

import torch
from torch import Tensor

from ..precision import narrow
from .arguments import compute_dtype, keep_valid

# TorchScript reads the annotations in this file, and does not know X | None on every Python.


def spatial_irnn_portable(
    x: Tensor, weight: Optional[Tensor], directions: list[int], sizes: Optional[Tensor]
) -> Tensor:
    """Sweep as :func:`ion_d2.layers.spatial_irnn` does, without its checks.

    Not to be run under autocast, which would round the state to 16 bits at every step of a full
    transition; TorchScript cannot switch it off inside.

    Args:
        x: (N, C, H, W), H and W at least 1.
        weight: None, (D, C) or (D, C, C).
        directions: D positions in ``ion_d2.layers.DIRECTIONS``.
        sizes: None or (N, 2) integers, valid (height, width) of each image in cells.

    Returns:
        (N, D * C, H, W) of x's type.
    """
    dtype = compute_dtype(x.dtype)
    source = keep_valid(x.to(dtype), sizes)
    swept: list[Tensor] = []
    for d, direction in enumerate(directions):
        factor: Optional[Tensor] = None
        if weight is not None:
            factor = weight[d].to(dtype)
        swept.append(_sweep(source, factor, direction))
    return narrow(keep_valid(torch.cat(swept, dim=1), sizes), x.dtype)


def _sweep(x: Tensor, weight: Optional[Tensor], direction: int) -> Tensor:
    """The states of one direction, (N, C, H, W)."""
    horizontal, backwards = direction < 2, direction % 2 == 1
    lines = x.permute(3, 0, 2, 1) if horizontal else x.permute(2, 0, 3, 1)  # [steps, N, L, C]
    if backwards:
        lines = lines.flip(0)
    if weight is None:
        states = _recur_diagonal(lines, torch.ones(1, dtype=x.dtype, device=x.device))
    elif weight.dim() == 1:
        states = _recur_diagonal(lines, weight)
    else:
        states = _recur_full(lines, weight.t())
    if backwards:
        states = states.flip(0)
    return states.permute(1, 3, 2, 0) if horizontal else states.permute(1, 3, 0, 2)


@torch.jit.script_if_tracing
def _recur_diagonal(lines: Tensor, factor: Tensor) -> Tensor:
    state = torch.zeros_like(lines[0])
    states: list[Tensor] = []
    for t in range(lines.size(0)):
        state = torch.relu(state * factor + lines[t])
        states.append(state)
    return torch.stack(states)


@torch.jit.script_if_tracing
def _recur_full(lines: Tensor, transposed: Tensor) -> Tensor:
    state = torch.zeros_like(lines[0])
    states: list[Tensor] = []
    for t in range(lines.size(0)):
        state = torch.relu(torch.matmul(state, transposed) + lines[t])
        states.append(state)
    return torch.stack(states)
