"""The published CUDA design of the spatial IRNN, restated in Triton as a rival for the benchmark.

DSC-PyTorch's and SPANet's kernels give every output cell a thread of its own, which recomputes the
whole prefix of its line from the border: H + W + 2 steps a cell instead of 4. Backward is one
launch of the same kind with a loop a direction for the gradient of the input and, where it is
learned, one for that of the weight; each fills a map a direction, summed up afterwards. The state
stays in a register here; there it is read back from memory at each step.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 1024


@triton.jit
def _place(total, height, width, BLOCK: tl.constexpr):
    """Number, row and column of each thread's cell, and where its plane starts."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    column = i % width
    row = i // width % height
    return i, row, column, i - row * width - column


@triton.jit
def _line(plane, row, column, height, width, DIRECTION: tl.constexpr):
    """First cell of the thread's line in the direction of travel, stride, own step, length."""
    length = width if DIRECTION < 2 else height
    step = column if DIRECTION < 2 else row
    stride = 1 if DIRECTION < 2 else width
    start = plane + (row * width if DIRECTION < 2 else column)
    if DIRECTION % 2 == 1:
        start += (length - 1) * stride
        step = length - 1 - step
        stride = -stride
    return start, stride, step, length


@triton.jit
def _forward_kernel(x, weight, out, total, channels, height, width, BLOCK: tl.constexpr):
    i, row, column, plane = _place(total, height, width, BLOCK)
    inside = i < total
    channel = plane // (height * width) % channels
    for direction in tl.static_range(4):
        start, stride, step, length = _line(plane, row, column, height, width, direction)
        factor = tl.load(weight + direction * channels + channel, inside)
        state = tl.zeros([BLOCK], tl.float32)
        for t in range(0, length):
            active = inside & (t <= step)
            line = tl.load(x + start + t * stride, active, other=0.0)
            state = tl.where(active, tl.maximum(factor * state + line, 0.0), state)
            tl.store(out + direction * total + i, state, active)


@triton.jit
def _backward_kernel(
    grad, out, weight, by_x, by_weight, total, channels, height, width,
    LEARNED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i, row, column, plane = _place(total, height, width, BLOCK)
    inside = i < total
    channel = plane // (height * width) % channels
    for direction in tl.static_range(4):
        start, stride, step, length = _line(plane, row, column, height, width, direction)
        factor = tl.load(weight + direction * channels + channel, inside)
        offset = direction * total + start
        delta = tl.zeros([BLOCK], tl.float32)
        for back in range(0, length):
            t = length - 1 - back
            active = inside & (t >= step)
            g = tl.load(grad + offset + t * stride, active, other=0.0)
            h = tl.load(out + offset + t * stride, active, other=0.0)
            delta = tl.where(active & (h > 0), factor * delta + g, tl.where(active, 0.0, delta))
            tl.store(by_x + direction * total + i, delta, active)
        if LEARNED:
            # The derivative of the state by the factor, along the prefix.
            slope = tl.zeros([BLOCK], tl.float32)
            before = tl.zeros([BLOCK], tl.float32)
            for t in range(0, length):
                active = inside & (t <= step)
                h = tl.load(out + offset + t * stride, active, other=0.0)
                slope = tl.where(
                    active & (h > 0), before + factor * slope, tl.where(active, 0.0, slope)
                )
                before = tl.where(active, h, before)
            own = tl.load(grad + direction * total + i, inside, other=0.0)
            tl.store(by_weight + direction * total + i, own * slope, inside)


class _PerCell(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        x = x.contiguous()
        count, channels, height, width = x.shape
        out = torch.zeros(4, *x.shape, device=x.device)
        grid = (triton.cdiv(x.numel(), _BLOCK),)
        _forward_kernel[grid](x, weight, out, x.numel(), channels, height, width, BLOCK=_BLOCK)
        ctx.save_for_backward(out, weight)
        return out.permute(1, 0, 2, 3, 4).flatten(1, 2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        out, weight = ctx.saved_tensors
        _, count, channels, height, width = out.shape
        grad = grad.unflatten(1, (4, channels)).permute(1, 0, 2, 3, 4).contiguous()
        learned = ctx.needs_input_grad[1]
        by_x, by_weight = torch.zeros_like(out), torch.zeros_like(out) if learned else None
        total = out[0].numel()
        _backward_kernel[(triton.cdiv(total, _BLOCK),)](
            grad, out, weight, by_x, by_weight, total, channels, height, width,
            LEARNED=learned, BLOCK=_BLOCK,
        )  # fmt: skip
        return by_x.sum(0), by_weight.sum((1, 3, 4)) if learned else None


def per_cell_irnn(x: Tensor, weight: Tensor | None) -> Tensor:
    """Sweep in four directions, one thread a cell.

    Args:
        x: (N, C, H, W), float32, on a GPU.
        weight: None for the identity, or (4, C).

    Returns:
        (N, 4 * C, H, W).
    """
    if weight is None:
        weight = torch.ones(4, x.shape[1], device=x.device)
    return _PerCell.apply(x, weight)
