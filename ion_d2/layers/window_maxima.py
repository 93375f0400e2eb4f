"""Maxima of many windows of a feature map, for an inference on a CPU.

A window of h x w cells is covered by four, one in each corner, whose sides are the largest powers
of two in h and w (by more and smaller ones, where few windows are of that size). The maxima of all
windows of such a size are those of half the size, shifted and compared, so that large windows cost
no more than small ones, and no cell is read once for each window that it lies in.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Below, the number 32 * a + b stands for windows of 2**a x 2**b cells.


@torch.jit.script_if_tracing
def window_maxima(x: Tensor, windows: Tensor) -> tuple[Tensor, Tensor]:
    """Take the maximum of each channel in each window.

    Args:
        x: (N, C, H, W) feature map.
        windows: (U, 5): index of the image, first row, one past the last, first column, one past
            the last.

    Returns:
        (U, C) maxima, 0 for a window that is empty or of an image that is not there, in an order
        that is fast to write; and (U,) which of them is that of each window.
    """
    image, top, bottom, left, right = windows.unbind(1)
    sizes = 32 * _level(bottom - top) + _level(right - left) + 1
    sizes = sizes.masked_fill((bottom <= top) | (right <= left), 0)
    # So that the windows of one size lie side by side.
    order = (image * 1024 + sizes).argsort()
    out = x.new_zeros([windows.size(0), x.size(1)])
    start = int((image < 0).sum())
    for i in range(x.size(0)):
        counts: list[int] = sizes[image == i].bincount(minlength=1).tolist()
        start += counts[0]
        own = order[start : start + sum(counts[1:])]
        _pool_image(out[start : start + own.numel()], x[i], windows[own], counts[1:])
        start += own.numel()
    return out, torch.empty_like(order).scatter_(0, order, torch.arange(order.numel()))


def _level(side: Tensor) -> Tensor:
    """Exponent of the largest power of two that is at most ``side``; 0 below 1."""
    powers = 2 ** torch.arange(1, 32)
    return (side[..., None] >= powers).sum(dim=-1)


def _pool_image(out: Tensor, x: Tensor, windows: Tensor, counts: list[int]) -> None:
    """Write the maxima of one image's windows, of which ``counts`` tells how many have each size.

    ``out`` is (windows, C), ``x`` (C, H, W). A size is that of :func:`_level`, rounded down.
    """
    if len(counts) == 0:
        return
    cells = x.size(1) * x.size(2)
    read = _table_sizes(counts, cells)
    starts: dict[int, int] = {}
    entries: dict[int, list[Tensor]] = {}
    start = 0
    for size, count in enumerate(counts):
        if count > 0:
            starts[size] = start
            entries[size] = _entries(windows[start : start + count], read[size], x.size(2))
        start += count
    # So many channels that a table fits into a cache; a vector register holds 16.
    step = min(x.size(0), 16 * max(1, (1 << 15) // cells))
    # Memory that is new to a process takes longer to come by than to fill.
    tables = _empty_tables(x, [read[size] for size in starts.keys()], step)
    both = x.new_empty([2, max(counts), step])
    for first in range(0, x.size(0), step):
        channel = min(first, x.size(0) - step)
        tables[0].copy_(x[channel : channel + step].permute(1, 2, 0))
        _fill_tables(tables)
        for size, start in starts.items():
            own = out[start : start + counts[size], channel : channel + step]
            _write_largest(own, tables[read[size]].view(-1, step), entries[size], both)


def _table_sizes(counts: list[int], cells: int) -> list[int]:
    """For windows of each size, the size in whose table they are looked up.

    A table costs one pass over the map. For windows fewer than a fifth of the map's cells it is not
    made: entries of the table of half the size cover them, two for one. This is decided from the
    largest size down.

    Args:
        counts: windows of each size.
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


def _entries(windows: Tensor, size: int, width: int) -> list[Tensor]:
    """Where in the table of a size, of a map so wide, are the entries that cover each window."""
    rows = _starts(windows[:, 1], windows[:, 2], 1 << size // 32)
    columns = _starts(windows[:, 3], windows[:, 4], 1 << size % 32)
    positions: list[Tensor] = []
    for row in rows:
        for column in columns:
            positions.append(row * (width - (1 << size % 32) + 1) + column)
    return positions


def _starts(first: Tensor, end: Tensor, side: int) -> list[Tensor]:
    """Where along a side entries begin that cover the cells up to ``end``, each within them."""
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


def _write_largest(out: Tensor, table: Tensor, entries: list[Tensor], both: Tensor) -> None:
    """Write the largest entry of each window; ``both`` has room for two tensors of out's shape."""
    found, other = both[0, : out.size(0)], both[1, : out.size(0)]
    torch.index_select(table, 0, entries[0], out=found)
    for entry in entries[1:]:
        torch.index_select(table, 0, entry, out=other)
        torch.maximum(found, other, out=found)
    out.copy_(found)
