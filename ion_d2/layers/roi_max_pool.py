"""ROI max pooling that is fast on a CPU; the results are torchvision's, bit for bit.

torchvision's CPU operator works in one thread and visits every channel of every bin by itself, in
memory that lies far apart; at the strides of skip pooling it takes longer than the network's fully
connected layers. In training, threads share the channels. Where no gradient is needed, threads
share the ROIs, all channels of a cell lie side by side, and a ROI is reduced first over rows, then
over columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
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
        x, size = x.detach(), list(self.output_size)
        if torch.jit.is_tracing():
            return _pool_all(x, rois, size, self.scale)
        x = x.contiguous(memory_format=torch.channels_last)
        parts = rois.tensor_split(torch.get_num_threads())
        return torch.cat(_in_threads(lambda part: _pool_all(x, part, size, self.scale), parts))


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


# The functions below are TorchScript too: a trace holds their loops, so that an exported model
# pools as fast as the one it came from.


@torch.jit.script_if_tracing
def _pool_all(x: Tensor, rois: Tensor, output_size: list[int], scale: float) -> Tensor:
    cells = x.permute(0, 2, 3, 1).contiguous()
    rows = _bins(rois[:, 2], rois[:, 4], output_size[0], scale, x.size(2))
    columns = _bins(rois[:, 1], rois[:, 3], output_size[1], scale, x.size(3))
    images: list[int] = rois[:, 0].long().tolist()
    out = x.new_zeros([len(images), output_size[0], output_size[1], x.size(1)])
    for i, image in enumerate(images):
        _pool_one(cells[image], rows[i], columns[i], out[i])
    return out.permute(0, 3, 1, 2)


def _pool_one(cells: Tensor, rows: list[list[int]], columns: list[list[int]], out: Tensor) -> None:
    """Write the maxima of (H, W, C) cells over bins into a zeroed (rows, columns, C)."""
    left, right = columns[0][0], columns[-1][1]
    strips = cells.new_zeros([len(rows), max(right - left, 0), cells.size(2)])
    for i, row in enumerate(rows):
        first, last = row[0], row[1]
        if first < last and left < right:
            torch.amax(cells[first:last, left:right], dim=[0], out=strips[i])
    for j, column in enumerate(columns):
        first, last = column[0], column[1]
        if first < last:
            torch.amax(strips[:, first - left : last - left], dim=[1], out=out[:, j])


def _bins(
    start: Tensor, end: Tensor, count: int, scale: float, limit: int
) -> list[list[list[int]]]:
    """First and one past the last cell of each bin along one side: M lists of ``count`` pairs.

    The arithmetic is Fast R-CNN's: whole cells, and bins that may share a cell.
    """
    first = _round(start * scale)
    size = (_round(end * scale) - first + 1).clamp(min=1) / count
    index = torch.arange(count + 1, dtype=start.dtype) * size[:, None]
    lower = (index[:, :-1].floor() + first[:, None]).clamp(0, limit)
    upper = (index[:, 1:].ceil() + first[:, None]).clamp(0, limit)
    bins: list[list[list[int]]] = torch.stack([lower, upper], dim=2).long().tolist()
    return bins


def _round(x: Tensor) -> Tensor:
    """Round halves away from zero, as C does; torch rounds them to even numbers."""
    return (x.sign() * (x.abs().double() + 0.5).floor()).to(x.dtype)
