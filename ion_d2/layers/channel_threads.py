"""ROI pooling by all threads of a CPU; torchvision's operators use one.

Channels are pooled independently of each other, so that the results are those of one thread, bit
for bit, forward and backward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

T = TypeVar("T")
R = TypeVar("R")


class Pooling(Protocol):
    """A kind of ROI pooling with its gradient, of any number of channels."""

    output_size: tuple[int, int]

    def pool(self, x: Tensor, rois: Tensor) -> tuple[Tensor, Tensor | None]:
        """(M, C, *output_size) of (N, C, H, W), and what the gradient has to know, (M, C, ...)."""

    def spread(self, grad: Tensor, rois: Tensor, known: Any, shape: torch.Size) -> Tensor:
        """The gradient of (N, C, H, W), the ``shape``, of that of (M, C, *output_size)."""


def pool_in_threads(x: Tensor, rois: Tensor, pooling: Pooling) -> Tensor:
    """Pool (N, C, H, W) on a CPU, with gradient, in float32 at least.

    Returns:
        (M, C, *output_size) of x's type; the channels are innermost, as a product over them wants
        it.
    """
    wide = common_dtype(x, rois)
    return _Pooled.apply(x.to(wide), rois.to(wide), pooling).to(x.dtype)


def common_dtype(x: Tensor, rois: Tensor) -> torch.dtype:
    """One type for both, as torchvision asks; 16 bits would round boxes to several pixels."""
    return torch.promote_types(torch.promote_types(x.dtype, rois.dtype), torch.float32)


def in_threads(work: Callable[[T], R], parts: Sequence[T]) -> list[R]:
    """What ``work`` returns for each part, in order, by as many threads as PyTorch uses."""
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        return list(threads.map(work, parts))


class _Pooled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rois: Tensor, pooling: Pooling) -> Tensor:
        out = x.new_empty(len(rois), *pooling.output_size, x.shape[1]).permute(0, 3, 1, 2)
        parts = _parts(x.shape[1])

        def pool(part: slice) -> Tensor | None:
            out[:, part], known = pooling.pool(x.detach()[:, part], rois)
            return known

        known = in_threads(pool, parts)
        ctx.save_for_backward(rois, *known)
        ctx.parts, ctx.shape, ctx.pooling = parts, x.shape, pooling
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        rois, *known = ctx.saved_tensors
        n, _, *size = ctx.shape
        grad_x = grad.new_empty(ctx.shape)

        def spread(part: tuple[slice, Tensor | None]) -> None:
            channels = grad[:, part[0]].contiguous()
            shape = torch.Size([n, channels.shape[1], *size])
            grad_x[:, part[0]] = ctx.pooling.spread(channels, rois, part[1], shape)

        in_threads(spread, list(zip(ctx.parts, known)))
        return grad_x, None, None


def _parts(channels: int) -> list[slice]:
    """Small slices: what lies between two layouts stays in a cache."""
    step = max(16, -(-channels // (8 * torch.get_num_threads())))
    return [slice(i, min(i + step, channels)) for i in range(0, channels, step)]
