"""ROI max pooling that is fast on a CPU; the results are torchvision's, bit for bit.

torchvision's CPU operator works in one thread and visits every channel of every bin by itself, in
memory that lies far apart; at the strides of skip pooling it takes longer than the network's fully
connected layers. In training, threads share the channels.

Where no gradient is needed, a bin of h x w cells is covered by four windows, one in each corner,
whose sides are the largest powers of two in h and w (by more and smaller ones, where few bins are
of that size). The maxima of all windows of a size are those of half the size, shifted and compared,
so that large bins cost no more than small ones. Fast R-CNN's bins overlap, and ROIs even more;
visiting each cell of each bin reads the map many times over. These functions are TorchScript too,
so that an exported model pools as fast as the one it came from.
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
    counts: list[int] = sizes[sizes >= 0].bincount().tolist()
    if len(counts) == 0:
        return
    cells = x.size(1) * x.size(2)
    read = _table_sizes(counts, cells)
    bins: dict[int, Tensor] = {}
    windows: dict[int, list[Tensor]] = {}
    for size, count in enumerate(counts):
        if count > 0:
            bins[size] = (sizes == size).nonzero()[:, 0]
            windows[size] = _windows(bins[size], edges, read[size], x.size(2))
    # So many channels that a table of windows fits into a cache; a vector register holds 16.
    step = min(x.size(0), 16 * max(1, (1 << 15) // cells))
    # Memory that is new to a process takes longer to come by than to fill.
    tables = _empty_tables(x, [read[size] for size in bins.keys()], step)
    both = x.new_empty([2, max(counts), step])
    for start in range(0, x.size(0), step):
        channel = min(start, x.size(0) - step)
        tables[0].copy_(x[channel : channel + step].permute(1, 2, 0))
        _fill_tables(tables)
        for size, own in bins.items():
            found = _largest(tables[read[size]].view(-1, step), windows[size], both)
            out[:, channel : channel + step].index_copy_(0, own, found)


def _largest(table: Tensor, windows: list[Tensor], both: Tensor) -> Tensor:
    """The maxima of each bin's windows, (bins, C); ``both`` has room for two of their size."""
    found, other = both[0, : windows[0].numel()], both[1, : windows[0].numel()]
    torch.index_select(table, 0, windows[0], out=found)
    for window in windows[1:]:
        torch.index_select(table, 0, window, out=other)
        torch.maximum(found, other, out=found)
    return found


def _table_sizes(counts: list[int], cells: int) -> list[int]:
    """For bins of each size, the size of the windows that they are made of.

    That is their own, or half of it, and so on: a table of windows costs about as much as the
    further, smaller windows that bins read without it, if they are a fifth as many as its cells.

    Args:
        counts: bins of each size.
        cells: of the map.
    """
    reads, read = counts[:], list(range(len(counts)))
    for size in range(len(counts) - 1, 0, -1):
        if 5 * reads[size] < cells:
            read[size] = _half(size)
            reads[_half(size)] += 2 * reads[size]
    for size in range(len(counts)):
        read[size] = read[read[size]]
    return read


def _windows(
    bins: Tensor, edges: tuple[Tensor, Tensor, Tensor, Tensor], size: int, width: int
) -> list[Tensor]:
    """Where in the table of windows of a size are those that cover some bins of a map so wide."""
    tops, bottoms, lefts, rights = edges
    down, across = bins // rights.size(1), bins % rights.size(1)
    roi = down // bottoms.size(1)
    rows = _starts(tops.flatten()[down], bottoms.flatten()[down], 1 << size // 32)
    columns = _starts(lefts[roi, across], rights[roi, across], 1 << size % 32)
    positions: list[Tensor] = []
    for row in rows:
        for column in columns:
            positions.append(row * (width - (1 << size % 32) + 1) + column)
    return positions


def _starts(first: Tensor, end: Tensor, side: int) -> list[Tensor]:
    """Where along a side windows begin that cover the cells up to ``end``, each within them."""
    count = (int((end - first).max()) + side - 1) // side
    return [torch.minimum(first + i * side, end - side) for i in range(count)]


def _empty_tables(x: Tensor, sizes: list[int], channels: int) -> dict[int, Tensor]:
    """Room for all windows of some sizes, and of those that they are made of.

    Size -> (H - h + 1, W - w + 1, channels) for windows of h x w cells of a map (C, H, W).
    """
    tables = {0: x.new_empty([x.size(1), x.size(2), channels])}
    for size in sizes:
        while size not in tables:
            shape = [x.size(1) - (1 << size // 32) + 1, x.size(2) - (1 << size % 32) + 1, channels]
            tables[size] = x.new_empty(shape)
            size = _half(size)
    return tables


def _fill_tables(tables: dict[int, Tensor]) -> None:
    """Take the maxima of windows, of which those of a single cell are there."""
    for size in sorted(tables.keys()):
        half, high, wide = tables[_half(size)], size // 32, size % 32
        if high > wide:
            shift = 1 << high - 1
            torch.maximum(half[:-shift], half[shift:], out=tables[size])
        elif wide > 0:
            shift = 1 << wide - 1
            torch.maximum(half[:, :-shift], half[:, shift:], out=tables[size])


def _half(size: int) -> int:
    """The size of half a window: its longer side is halved. That of a cell is its own."""
    return size - 32 if size // 32 > size % 32 else max(0, size - 1)


def _level(side: Tensor) -> Tensor:
    """Exponent of the largest power of two that is at most ``side``; 0 below 1."""
    powers = 2 ** torch.arange(1, 32)
    return (side[..., None] >= powers).sum(dim=-1)
