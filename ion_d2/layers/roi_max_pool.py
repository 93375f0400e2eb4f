"""ROI max pooling that is fast on a CPU; the results are torchvision's, bit for bit.

torchvision's CPU operator works in one thread and visits every channel of every bin by itself, in
memory that lies far apart; at the strides of skip pooling it takes longer than the network's fully
connected layers. In training, threads share the channels.

Where no gradient is needed, a bin of h x w cells is covered by four windows, one in each corner,
whose sides are the largest powers of two in h and w. The maxima of all windows of a size are those
of half the size, shifted and compared, so that large bins cost no more than small ones. Fast
R-CNN's bins overlap, and ROIs even more; visiting each cell of each bin reads the map many times
over. These functions are TorchScript too, so that an exported model pools as fast as the one it
came from.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torchvision.ops import roi_pool

from .precision import common_dtype


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
        pooled = pool_windows(x.detach().to(rois.dtype), rois, list(self.output_size), self.scale)
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
        with ThreadPoolExecutor(torch.get_num_threads()) as threads:
            ctx.save_for_backward(rois, *threads.map(pool, parts))
        ctx.parts, ctx.shape, ctx.layer = parts, x.shape, layer
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        rois, *argmax = ctx.saved_tensors
        n, _, *size = ctx.shape
        grad_x = grad.new_empty(ctx.shape)

        def spread(part: slice, argmax: Tensor) -> None:
            channels = grad[:, part].contiguous()
            shape = n, channels.shape[1], *size
            grad_x[:, part] = torch.ops.torchvision._roi_pool_backward(
                channels, rois, argmax.int(), ctx.layer.scale, *ctx.layer.output_size, *shape
            )

        with ThreadPoolExecutor(torch.get_num_threads()) as threads:
            list(threads.map(spread, ctx.parts, argmax))  # which raises what a thread raises
        return grad_x, None, None


def _parts(channels: int) -> list[slice]:
    """Small slices: what lies between two layouts stays in a cache."""
    step = max(16, -(-channels // (8 * torch.get_num_threads())))
    return [slice(i, i + step) for i in range(0, channels, step)]


# Below, the number 32 * a + b stands for windows of 2**a x 2**b cells.


@torch.jit.script_if_tracing
def pool_windows(x: Tensor, rois: Tensor, output_size: list[int], scale: float) -> Tensor:
    """Pool as ``torchvision.ops.roi_pool`` does, bit for bit, without a gradient.

    Args:
        x: (N, C, H, W) feature map.
        rois: (M, 5): index of the image, then x0 y0 x1 y1 in pixels, of the dtype of ``x``.
        output_size: number of bins down and across.
        scale: cells a pixel.

    Returns:
        (M, C, *output_size), channels innermost in memory; empty bins are 0.
    """
    tops, bottoms = _edges(rois[:, 2], rois[:, 4], output_size[0], scale, x.size(2))
    lefts, rights = _edges(rois[:, 1], rois[:, 3], output_size[1], scale, x.size(3))
    edges = (tops, bottoms, lefts, rights)
    heights, widths = bottoms - tops, rights - lefts
    sizes = (32 * _level(heights)[:, :, None] + _level(widths)[:, None]).flatten()
    out = x.new_zeros([sizes.numel(), x.size(1)])
    for image in range(x.size(0)):
        own = (rois[:, 0] == image)[:, None] & (heights > 0)
        full = (own[:, :, None] & (widths > 0)[:, None]).flatten()
        _pool_image(out, x[image], sizes.masked_fill(~full, -1), edges)
    return out.view(-1, output_size[0], output_size[1], x.size(1)).permute(0, 3, 1, 2)


def _edges(
    start: Tensor, end: Tensor, bins: int, scale: float, limit: int
) -> tuple[Tensor, Tensor]:
    """First and one past the last cell of each bin along one side, (M, bins) each.

    The arithmetic is Fast R-CNN's, of whole cells, in the dtype of the ROIs.
    """
    first = _round(start * scale)
    span = (_round(end * scale) - first + 1).clamp(min=1)
    edges = torch.arange(bins + 1, dtype=start.dtype) * (span / bins)[:, None]
    lows, highs = edges[:, :-1].floor() + first[:, None], edges[:, 1:].ceil() + first[:, None]
    return lows.clamp(0, limit).long(), highs.clamp(0, limit).long()


def _round(x: Tensor) -> Tensor:
    """Round halves away from zero, as C does; torch rounds them to even numbers."""
    return (x.sign() * (x.abs().double() + 0.5).floor()).to(x.dtype)


def _pool_image(
    out: Tensor, x: Tensor, sizes: Tensor, edges: tuple[Tensor, Tensor, Tensor, Tensor]
) -> None:
    """Write into ``out``, (M * P * Q, C), the maxima of those bins whose size is not below 0.

    ``x`` is the map of one image, (C, H, W).
    """
    tops, bottoms, lefts, rights = edges
    used: list[int] = sizes[sizes >= 0].bincount().nonzero()[:, 0].tolist()
    bins: dict[int, Tensor] = {}
    corners: dict[int, list[Tensor]] = {}
    for size in used:
        bins[size] = (sizes == size).nonzero()[:, 0]
        down, across = bins[size] // rights.size(1), bins[size] % rights.size(1)
        roi = down // bottoms.size(1)
        rows = (tops.flatten()[down], bottoms.flatten()[down])
        columns = (lefts[roi, across], rights[roi, across])
        corners[size] = _corners(rows, columns, size, x.size(2))
    # So many channels that a table of windows fits into a cache; a vector register holds 16.
    step = 16 * max(1, (1 << 15) // (x.size(1) * x.size(2)))
    for channel in range(0, x.size(0), step):
        part = x[channel : channel + step].permute(1, 2, 0).contiguous()
        maxima = _window_maxima(part, used)
        for size, own in bins.items():
            table = maxima[size].view(-1, part.size(2))
            found = table.index_select(0, corners[size][0])
            for corner in corners[size][1:]:
                torch.maximum(found, table.index_select(0, corner), out=found)
            out[:, channel : channel + step].index_copy_(0, own, found)


def _corners(
    rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor], size: int, width: int
) -> list[Tensor]:
    """Where in a table of windows are those that begin, and those that end, with some bins."""
    high, wide = 1 << size // 32, 1 << size % 32
    downs = [rows[0]] + ([rows[1] - high] if high > 1 else [])
    found: list[Tensor] = []
    for down in downs:
        found.append(down * (width - wide + 1) + columns[0])
        if wide > 1:
            found.append(down * (width - wide + 1) + columns[1] - wide)
    return found


def _window_maxima(x: Tensor, sizes: list[int]) -> dict[int, Tensor]:
    """The maxima of all windows of some sizes, (H, W, C) -> (H - h + 1, W - w + 1, C) each."""
    needed: dict[int, bool] = {}
    for size in sizes:
        # What a size is made of, one side halved at a time, so that sizes share the steps.
        while size > 0:
            needed[size] = True
            size -= 32 if size // 32 > size % 32 else 1
    maxima = {0: x}
    for size in sorted(needed.keys()):
        high, wide = size // 32, size % 32
        if high > wide:
            half = maxima[size - 32]
            maxima[size] = torch.maximum(half[: -(1 << high - 1)], half[1 << high - 1 :])
        else:
            half = maxima[size - 1]
            maxima[size] = torch.maximum(half[:, : -(1 << wide - 1)], half[:, 1 << wide - 1 :])
    return maxima


def _level(side: Tensor) -> Tensor:
    """Exponent of the largest power of two that is at most ``side``; 0 below 1."""
    powers = 2 ** torch.arange(1, 32)
    return (side[..., None] >= powers).sum(dim=-1)
