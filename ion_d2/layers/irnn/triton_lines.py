"""Launches of the Triton kernels for the identity and the diagonal transition.

An axis of travel is 3 (along rows) or 2 (along columns), as in ``TRAVEL``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .arguments import DIRECTIONS, TRAVEL, compute_dtype, empty_map, memory_format_of
from .triton_lines_backward import backward_kernel
from .triton_lines_forward import forward_kernel
from .triton_tiles import LINES, NUM_WARPS, STEPS


def elementwise_forward(
    x: Tensor, weight: Tensor | None, directions: Sequence[str], sizes: Tensor | None
) -> Tensor:
    """See :func:`ion_d2.layers.irnn.triton_backend.forward`."""
    out = empty_map(x, len(directions) * x.shape[1], memory_format_of(x))
    if out.numel() == 0:
        return out
    row_blocks, flat_rows = _blocks(x, axis=3)
    column_blocks, flat_columns = _blocks(x, axis=2)
    programs = x.shape[0] * max(row_blocks, column_blocks) * len(directions)
    dense = [None if t is None else t.contiguous() for t in (weight, sizes)]
    forward_kernel[(programs,)](
        *(x, out, *dense),
        *(*x.shape[1:], row_blocks, column_blocks),
        *x.stride(),
        *out.stride(),
        CODES=_pack([DIRECTIONS.index(name) for name in directions], bits=2),
        NUM_DIRECTIONS=len(directions),
        FLAT_ROWS=flat_rows,
        FLAT_COLUMNS=flat_columns,
        **_options(x),
    )
    return out


def elementwise_backward(
    grad: Tensor, output: Tensor, weight: Tensor | None, directions: Sequence[str]
) -> tuple[Tensor, Tensor | None]:
    """See :func:`ion_d2.layers.irnn.triton_backend.backward`."""
    grad_x = empty_map(output, output.shape[1] // len(directions), memory_format_of(output))
    if grad_x.numel() == 0:
        return grad_x, None if weight is None else torch.zeros_like(weight)
    dense = None if weight is None else weight.contiguous()
    total = grad_x
    if len(directions) > 1 and compute_dtype(grad_x.dtype) != grad_x.dtype:
        total = torch.empty_like(grad_x, dtype=compute_dtype(grad_x.dtype))
    slopes: dict[int, Tensor] = {}
    axes = sorted({TRAVEL[name].axis for name in directions}, reverse=True)
    for axis in axes:
        slots = [d for d, name in enumerate(directions) if TRAVEL[name].axis == axis]
        per_line = _sweep_axis_back(
            grad,
            output,
            dense,
            total,
            grad_x,
            axis,
            SLOTS=_pack([2 * d + TRAVEL[directions[d]].backwards for d in slots], bits=16),
            NUM_SLOTS=len(slots),
            OPENS=axis == axes[0],
            CLOSES=axis == axes[-1],
        )
        if per_line is not None:
            slopes.update(zip(slots, per_line.sum(dim=(1, 3))))
    if weight is None:
        return grad_x, None
    return grad_x, torch.stack([slopes[d] for d in sorted(slopes)]).to(weight.dtype)


def _sweep_axis_back(
    grad: Tensor,
    output: Tensor,
    weight: Tensor | None,
    total: Tensor,
    grad_x: Tensor,
    axis: int,
    **constants: Any,
) -> Tensor | None:
    """Add up the directions of one axis; return the weight's gradient by [slot, N, C, line]."""
    n, c = grad_x.shape[:2]
    others, steps = grad_x.shape[_across(axis)], grad_x.shape[axis]
    blocks, flat = _blocks(grad_x, axis)
    slopes = None
    if weight is not None:
        shape = (constants["NUM_SLOTS"], n, c, others)
        slopes = total.new_empty(shape, dtype=compute_dtype(total.dtype))
    backward_kernel[(n * blocks,)](
        *(grad, output, weight, total, grad_x, slopes),
        *(n, c, others, steps, blocks),
        *_strides(grad, axis),
        *_strides(output, axis),
        *_strides(grad_x, axis),
        FLAT=flat,
        **constants,
        **_options(output),
    )
    return slopes


def _across(axis: int) -> int:
    """The spatial axis across an axis of travel."""
    return 5 - axis


def _blocks(x: Tensor, axis: int) -> tuple[int, bool]:
    """Programs that share the lines of an image along an axis, and whether their blocks are flat.

    See :func:`ion_d2.layers.irnn.triton_tiles.line_of`.
    """
    channels, others = x.shape[1], x.shape[_across(axis)]
    _, by_channel, by_other, by_step = _strides(x, axis)
    inner, outer, by_inner = others, channels, by_other
    if memory_format_of(x) == torch.channels_last:
        inner, outer, by_inner = channels, others, by_channel
    # Where steps lie closer together than lines do, a tile is read along the steps, and it does
    # not matter where its lines are. Short rows of lines would leave most threads idle.
    if by_step <= by_inner or inner < LINES:
        return triton.cdiv(inner * outer, LINES), True
    return triton.cdiv(inner, LINES) * outer, False


def _strides(tensor: Tensor, axis: int) -> tuple[int, int, int, int]:
    """Strides of the image, the channel, the line in it, and the step."""
    image, channel, line, step = (tensor.stride(i) for i in (0, 1, _across(axis), axis))
    return image, channel, line, step


def _options(x: Tensor) -> dict[str, Any]:
    return {
        "CHANNELS_LAST": memory_format_of(x) == torch.channels_last,
        "STATE": tl.float64 if x.dtype == torch.float64 else tl.float32,
        "LINES": LINES,
        "STEPS": STEPS,
        "num_warps": NUM_WARPS,
    }


def _pack(numbers: Sequence[int], bits: int) -> int:
    """Write small numbers into one that a kernel can be compiled for, the first lowest."""
    return sum(number << bits * i for i, number in enumerate(numbers))
