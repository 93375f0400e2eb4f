"""Launches of the Triton kernel for the full transition."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
from torch import Tensor

from .arguments import DIRECTIONS, TRAVEL, empty_map, memory_format_of
from .triton_full_kernel import matrix_kernel

# With 512 channels and a map of 38 x 63 cells, a step in four directions has 128 tiles of this
# size, about one for each multiprocessor of a large GPU.
_BLOCK_LINES, _BLOCK_OUT, _BLOCK_IN = 32, 32, 64
_NUM_WARPS = 4


def full_forward(
    x: Tensor, weight: Tensor, directions: Sequence[str], sizes: Tensor | None
) -> Tensor:
    """See :func:`ion_d2.layers.irnn.triton_backend.forward`."""
    out = empty_map(x, len(directions) * x.shape[1], memory_format_of(x))
    if out.numel() == 0:
        return out
    in_place = out.dtype == torch.float32 and memory_format_of(x) == torch.channels_last
    states = out if in_place else _empty_states(out)
    codes = [DIRECTIONS.index(name) for name in directions]
    _launch(x, 0, states, _dense(weight), None, sizes, codes)
    return out if in_place else out.copy_(states)


def full_backward(
    grad: Tensor, output: Tensor, weight: Tensor, directions: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """See :func:`ion_d2.layers.irnn.triton_backend.backward`."""
    channels = weight.shape[1]
    grad_x = empty_map(output, channels, memory_format_of(output))
    if grad_x.numel() == 0:
        return grad_x, torch.zeros_like(weight)
    grads = _empty_states(output)
    against = [DIRECTIONS.index(name) ^ 1 for name in directions]
    skip = channels * grad.stride(1)
    _launch(grad, skip, grads, _dense(weight).transpose(1, 2), output, None, against)
    by_direction = grads.unflatten(1, (len(directions), channels))
    grad_x.copy_(by_direction.sum(dim=1))
    states = output.float().unflatten(1, by_direction.shape[1:3])
    products = [
        _weight_gradient(by_direction[:, d], states[:, d], name)
        for d, name in enumerate(directions)
    ]
    return grad_x, torch.stack(products).to(weight.dtype)


def _weight_gradient(grads: Tensor, states: Tensor, direction: str) -> Tensor:
    """Sum the products of every cell's gradient with the state before it, (C, C)."""
    axis, backwards = TRAVEL[direction]
    pairs = max(grads.shape[axis] - 1, 0)
    grads = grads.narrow(axis, 0 if backwards else 1, pairs)
    states = states.narrow(axis, 1 if backwards else 0, pairs)
    return torch.einsum("nohw,nihw->oi", grads, states)


def _dense(weight: Tensor) -> Tensor:
    """The kernel finds a direction's matrix C * C numbers behind the one before."""
    return weight.float().contiguous()


def _empty_states(like: Tensor) -> Tensor:
    """A step reads all channels of a cell, so they must lie side by side."""
    return torch.empty(
        like.shape, dtype=torch.float32, device=like.device, memory_format=torch.channels_last
    )


def _launch(
    source: Tensor,
    source_d: int,
    states: Tensor,
    weight: Tensor,
    gate: Tensor | None,
    sizes: Tensor | None,
    codes: Sequence[int],
) -> None:
    """Take all steps; the arguments are those of the kernel."""
    n, _, h, w = states.shape
    channels = weight.shape[1]
    lines = n * max(w if code >= 2 else h for code in codes)
    steps = max(h if code >= 2 else w for code in codes)
    line_blocks = triton.cdiv(lines, _BLOCK_LINES)
    tiles = line_blocks * len(codes) * triton.cdiv(channels, _BLOCK_OUT)
    # Programs that wait for each other must all be resident. The interpreter runs one at a time.
    at_once, programs, options = 1, 1, {}
    if states.is_cuda:
        device = torch.cuda.get_device_properties(states.device)
        at_once, programs = steps, min(tiles, device.multi_processor_count)
        options = {"launch_cooperative_grid": True}
    counter = torch.zeros(1, dtype=torch.int32, device=states.device)
    for first in range(0, steps, at_once):
        matrix_kernel[(programs,)](
            *(source, states, weight, gate, None if sizes is None else sizes.contiguous()),
            *(counter, first, first + at_once, n, channels, h, w, line_blocks),
            *(source.stride(0), source_d, *source.stride()[1:]),
            *(states.stride(0), *states.stride()[2:]),
            *((0, 0, 0, 0) if gate is None else gate.stride()),
            *weight.stride()[1:],
            CODES=sum(code << 2 * d for d, code in enumerate(codes)),
            NUM_DIRECTIONS=len(codes),
            PRECISION=_precision(source.dtype),
            BLOCK_LINES=_BLOCK_LINES,
            BLOCK_OUT=_BLOCK_OUT,
            BLOCK_IN=_BLOCK_IN,
            num_warps=_NUM_WARPS,
            **options,
        )


def _precision(dtype: torch.dtype) -> str:
    """Tensor cores multiply in TF32: three times for the precision of float32."""
    return "tf32" if dtype != torch.float32 or _allows_tf32() else "tf32x3"


def _allows_tf32() -> bool:
    """What PyTorch is told about its own products of matrices; the older way to ask may raise."""
    matmul = torch.backends.cuda.matmul
    precision = getattr(matmul, "fp32_precision", None)  # PyTorch 2.9 and newer
    return matmul.allow_tf32 if precision is None else precision == "tf32"
