"""ROI max pooling that is fast on a CPU; the results are torchvision's, bit for bit.

torchvision's CPU operator works in one thread and visits every channel of every bin by itself, in
memory that lies far apart; at the strides of skip pooling it takes longer than the network's fully
connected layers. In training, threads share the channels. Where no gradient is needed, all channels
of a cell lie side by side, and PyTorch's adaptive pooling, whose bins are Fast R-CNN's, takes a ROI
at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torchvision.ops import roi_pool

from .precision import common_dtype

T = TypeVar("T")
R = TypeVar("R")


class ROIMaxPool(nn.Module):
    """In place of ``torchvision.ops.RoIPool``."""

    def __init__(self, output_size: tuple[int, int], scale: float) -> None:
        """
        Args:
            output_size: number of bins down and across.
            scale: cells a pixel, e.g. 1/16.
        """
        super().__init__()
        self.output_size = output_size
        self.scale = scale

    def forward(self, x: Tensor, rois: Tensor) -> Tensor:
        """Pool the maximum of each bin of each ROI.

        Args:
            x: (N, C, H, W) feature map.
            rois: (M, 5): index of the image, then x0 y0 x1 y1 in pixels.

        Returns:
            (M, C, *output_size); empty bins are 0. Gradients flow as torchvision's do.
        """
        rois = rois.to(common_dtype(x, rois))
        # In ONNX, torchvision's operator is a single node.
        if x.device.type != "cpu" or torch.onnx.is_in_onnx_export():
            return roi_pool(x.to(rois.dtype), rois, self.output_size, self.scale).to(x.dtype)
        if torch.is_grad_enabled() and x.requires_grad:
            return _ROIMaxPool.apply(x.to(rois.dtype), rois, self).to(x.dtype)
        pooled = _pool(x.detach().to(rois.dtype), rois, list(self.output_size), self.scale)
        return pooled.to(x.dtype)


class _ROIMaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rois: Tensor, layer: ROIMaxPool) -> Tensor:
        x = x.detach()  # gradients are on in a new thread
        # Channels innermost in memory, as a product over them wants it.
        out = x.new_empty(len(rois), *layer.output_size, x.shape[1]).permute(0, 3, 1, 2)
        # Half the memory, where an index of a cell has 15 bits.
        index = torch.int16 if x.shape[2:].numel() < 2**15 else torch.int32

        def pool(part: slice) -> Tensor:
            out[:, part], argmax = torch.ops.torchvision.roi_pool(
                x[:, part], rois, layer.scale, *layer.output_size
            )
            return argmax.to(index)

        parts = _parts(x.shape[1])
        ctx.save_for_backward(rois, *_in_threads(pool, parts))
        ctx.parts, ctx.shape, ctx.layer = parts, x.shape, layer
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        rois, *argmax = ctx.saved_tensors
        n, _, *size = ctx.shape
        grad_x = grad.new_empty(ctx.shape)

        def spread(part: tuple[slice, Tensor]) -> None:
            channels = grad[:, part[0]].contiguous()
            shape = n, channels.shape[1], *size
            grad_x[:, part[0]] = torch.ops.torchvision._roi_pool_backward(
                channels, rois, part[1].int(), ctx.layer.scale, *ctx.layer.output_size, *shape
            )

        _in_threads(spread, list(zip(ctx.parts, argmax)))
        return grad_x, None, None


def _parts(channels: int) -> list[slice]:
    """Small slices: what lies between two layouts stays in a cache."""
    step = max(16, -(-channels // (8 * torch.get_num_threads())))
    return [slice(i, min(i + step, channels)) for i in range(0, channels, step)]


def _in_threads(work: Callable[[T], R], parts: Sequence[T]) -> list[R]:
    """What ``work`` returns for each part, in order, by as many threads as PyTorch uses."""
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        return list(threads.map(work, parts))


# The functions below are TorchScript too: a trace holds their loop, so that an exported model pools
# as fast as the one it came from.


@torch.jit.script_if_tracing
def _pool(x: Tensor, rois: Tensor, output_size: list[int], scale: float) -> Tensor:
    height, width = x.size(2), x.size(3)
    tops, bottoms, regular = _spans(rois[:, 2], rois[:, 4], output_size[0], scale, height)
    lefts, rights, as_regular = _spans(rois[:, 1], rois[:, 3], output_size[1], scale, width)
    regular &= as_regular
    out = x.new_empty([rois.size(0), output_size[0], output_size[1], x.size(1)])
    out = out.permute(0, 3, 1, 2)
    other = (~regular).nonzero()[:, 0]
    out[other] = torch.ops.torchvision.roi_pool(
        x, rois[other], scale, output_size[0], output_size[1]
    )[0]
    x = x.contiguous(memory_format=torch.channels_last)
    images = rois[:, 0].long()
    spans: list[list[int]] = torch.stack([images, tops, bottoms, lefts, rights], dim=1).tolist()
    indices: list[int] = regular.nonzero()[:, 0].tolist()
    for i in indices:
        image, top, bottom, left, right = spans[i]
        roi = x[image : image + 1, :, top:bottom, left:right]
        beyond = [0, max(right - width, 0), 0, max(bottom - height, 0)]
        if max(beyond) > 0:
            roi = F.pad(roi, beyond, value=-math.inf)
        out[i] = F.adaptive_max_pool2d(roi, output_size)[0]
    return out


def _spans(
    start: Tensor, end: Tensor, bins: int, scale: float, limit: int
) -> tuple[Tensor, Tensor, Tensor]:
    """First and one past the last cell of each ROI along one side, and which ROIs are regular.

    The arithmetic is Fast R-CNN's, of whole cells. Bins of a regular ROI are those of adaptive
    pooling, which they may not be by rounding; none is empty; and it reaches at most 2 cells beyond
    the end of the map, as a box that ends with its image does.
    """
    first = _round(start * scale)
    span = (_round(end * scale) - first + 1).clamp(min=1)
    index = torch.arange(bins + 1, dtype=start.dtype)
    edges = index * (span / bins)[:, None]
    exact = index.double() * span.double()[:, None] / bins
    regular = ((edges.floor() == exact.floor()) & (edges.ceil() == exact.ceil())).all(dim=1)
    regular &= (first >= 0) & (first + span <= limit + 2) & (first + edges[:, -2].floor() < limit)
    return first.long(), (first + span).long(), regular


def _round(x: Tensor) -> Tensor:
    """Round halves away from zero, as C does; torch rounds them to even numbers."""
    return (x.sign() * (x.abs().double() + 0.5).floor()).to(x.dtype)
