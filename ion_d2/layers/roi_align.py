"""ROIAlign as a product with a sparse matrix, on a CPU several times as fast as torchvision's.

A bin is a weighted sum of cells, the same cells and weights for all channels. torchvision's CPU
operator works them out for each channel, in memory that lies far apart and in one thread. Here
they are worked out once, and a bin adds up rows that hold all channels of a cell: the sum that
``torch.nn.functional.embedding_bag`` computes. The gradient is the product with the transpose.

Shape shorthand: M is the number of ROIs, P and Q the bins down and across.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torchvision import ops

from .precision import common_dtype

# Entries of the matrix that are held at a time, about 40 bytes each.
_ENTRIES = 2**21


class ROIAlign(ops.RoIAlign):
    """In place of torchvision's or Detectron2's; equal up to rounding."""

    def forward(self, x: Tensor, rois: Tensor) -> Tensor:
        """Pool (N, C, H, W) over ROIs (M, 5), of any floating point, to (M, C, P, Q).

        On a CPU the channels are innermost in memory, as a product over them wants it.
        """
        wide = common_dtype(x, rois)
        # A trace keeps the operator, a single node in ONNX.
        if x.device.type != "cpu" or torch.jit.is_tracing() or torch.onnx.is_in_onnx_export():
            rois = rois.to(wide)
            if x.dtype == wide:  # for a trace would record that nothing is converted
                return super().forward(x, rois)
            return super().forward(x.to(wide), rois).to(x.dtype)
        return _ROIAlign.apply(x.to(wide), rois.to(wide), self).to(x.dtype)


class _ROIAlign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rois: Tensor, layer: ROIAlign) -> Tensor:
        ctx.save_for_backward(rois)
        ctx.shape, ctx.layer = x.shape, layer
        cells = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
        bins = cells.new_empty(len(rois), *layer.output_size, x.shape[1])
        for part, matrix in _matrices(rois, x.shape, layer):
            bins[part] = matrix.product(cells).view_as(bins[part])
        return bins.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (rois,) = ctx.saved_tensors
        n, channels, height, width = ctx.shape
        bins = grad.permute(0, 2, 3, 1)
        cells = grad.new_zeros(n * height * width, channels)
        for part, matrix in _matrices(rois, ctx.shape, ctx.layer):
            cells += matrix.transpose(len(cells)).product(bins[part].reshape(-1, channels))
        return cells.view(n, height, width, channels).permute(0, 3, 1, 2), None, None


class _Matrix(NamedTuple):
    """A sparse matrix in compressed rows."""

    starts: Tensor  # where each row begins among the entries
    columns: Tensor
    values: Tensor

    def product(self, rows: Tensor) -> Tensor:
        """The matrix times (columns, C)."""
        return F.embedding_bag(
            self.columns, rows, self.starts, mode="sum", per_sample_weights=self.values
        )

    def transpose(self, columns: int) -> _Matrix:
        """For a matrix of as many ``columns``."""
        index, order = self.columns.sort()
        starts = torch.searchsorted(index, torch.arange(columns))
        row = torch.searchsorted(self.starts, order, right=True) - 1
        return _Matrix(starts, row, self.values[order])


def _matrices(rois: Tensor, shape: torch.Size, layer: ROIAlign) -> Iterator[tuple[slice, _Matrix]]:
    """(bins, cells) of a few ROIs at a time, so that large ones take no more memory."""
    # torchvision reads from anywhere for what is not finite, as boxes of a training that diverged.
    rois = rois.nan_to_num(0.0, 0.0, 0.0)
    corners = rois[:, 1:] * layer.spatial_scale - (0.5 if layer.aligned else 0.0)
    extent = corners[:, 2:] - corners[:, :2]
    if not layer.aligned:
        extent = extent.clamp(min=1.0)
    down, across = (
        _weights(corners[:, i], extent[:, i], bins, layer.sampling_ratio, limit)
        for i, bins, limit in zip((1, 0), layer.output_size, shape[2:])
    )
    entries = (down != 0).sum((1, 2)) * (across != 0).sum((1, 2))
    portions = entries.cumsum(0).div(_ENTRIES, rounding_mode="floor")
    start = 0
    for count in portions.unique_consecutive(return_counts=True)[1].tolist():
        part = slice(start, start + count)
        yield part, _outer(down[part], across[part], rois[part, 0].long())
        start += count


def _weights(start: Tensor, extent: Tensor, bins: int, samples: int, limit: int) -> Tensor:
    """What each cell along one side counts in each bin: (M, bins, limit).

    As torchvision has it, a sample up to one cell outside counts as one on the border, and one
    farther outside as zero.
    """
    size = extent / bins
    count = torch.full_like(size, samples) if samples > 0 else size.ceil().clamp(min=0)
    sample = torch.arange(int(count.amax()) if len(count) else 0, dtype=start.dtype)
    index = torch.arange(bins, dtype=start.dtype)[:, None]
    size, count = size[:, None, None], count[:, None, None]
    taken = sample < count
    count = count.clamp(min=1)
    position = start[:, None, None] + index * size + (sample + 0.5) * size / count
    share = (taken & (position >= -1) & (position <= limit)) / count
    position = position.clamp(0, limit - 1)
    lower = position.floor()
    upper_share = (position - lower) * share
    weights = start.new_zeros(len(start), bins, limit)
    weights.scatter_add_(2, lower.long(), share - upper_share)
    return weights.scatter_add_(2, (lower.long() + 1).clamp(max=limit - 1), upper_share)


def _outer(down: Tensor, across: Tensor, images: Tensor) -> _Matrix:
    """Products of the weights of a few ROIs along both sides, (M, P, H) and (M, Q, W)."""
    row, row_weight, rows, first_row = _entries(down)
    column, weight, columns, first_column = _entries(across)
    row += (images * down.shape[2]).repeat_interleave(rows.sum(1))
    row *= across.shape[2]
    shape = len(images), down.shape[1], across.shape[1]
    rows, first_row = (t[:, :, None].expand(shape).flatten() for t in (rows, first_row))
    columns, first_column = (t[:, None].expand(shape).flatten() for t in (columns, first_column))
    # A strip is what a bin has in one row: first which strips there are, then their cells.
    bins, y = _expand(rows, first_row)
    strip, x = _expand(columns[bins], first_column[bins])
    counts = rows * columns
    return _Matrix(
        counts.cumsum(0) - counts,
        row[y][strip].add_(column[x]),
        row_weight[y][strip].mul_(weight[x]),
    )


def _entries(weights: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of (M, bins, cells): cells and values of what is not 0, and a bin's count and first entry."""
    at = weights.nonzero(as_tuple=True)
    counts = (weights != 0).sum(2)
    return at[2], weights[at], counts, counts.flatten().cumsum(0).view_as(counts) - counts


def _expand(counts: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    """For each of a group's ``counts`` entries: the group, and ``first``, first + 1, ..."""
    starts = counts.cumsum(0) - counts
    group = torch.arange(len(counts)).repeat_interleave(counts)
    return group, torch.arange(len(group)).add_((first - starts)[group])
