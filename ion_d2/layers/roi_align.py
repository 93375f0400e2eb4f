"""ROIAlign whose gradient is fast on a CPU.

torchvision's CPU operator computes each sample's weights again for every channel and adds to memory
that lies far apart; with four features to pool, that takes longer than any layer of a small
network. ROIAlign is linear: a bin is a weighted sum of cells. Here the weights are computed once
for all channels, and all channels of a cell, lying side by side, are added at once. The values are
torchvision's own, the gradients equal its up to the order of their sums.

Shape shorthand: M is the number of ROIs, P and Q the bins down and across, S the samples along a
bin's side.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torchvision import ops


def roi_align(
    x: Tensor,
    rois: Tensor,
    output_size: tuple[int, int],
    scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """Pool the mean of interpolated samples of each bin, as ``torchvision.ops.roi_align`` does.

    Args:
        x: (N, C, H, W) feature map.
        rois: (M, 5): index of the image, then x0 y0 x1 y1 in pixels; of any floating-point type.
        output_size: P and Q.
        scale: cells a pixel, e.g. 1/16.
        sampling_ratio: S; 0 adapts it to the ROI's size, and takes torchvision's gradient.
        aligned: whether cell centers lie at half cells ("ROIAlignV2").

    Returns:
        (M, C, P, Q).
    """
    rois = rois.to(x.dtype)
    needs_gradient = torch.is_grad_enabled() and x.requires_grad
    if x.device.type == "cpu" and sampling_ratio > 0 and needs_gradient:
        return _ROIAlign.apply(x, rois, output_size, scale, sampling_ratio, aligned)
    return ops.roi_align(x, rois, output_size, scale, sampling_ratio, aligned)


class ROIAlign(nn.Module):
    """:func:`roi_align` as a module, in the place of ``detectron2.layers.ROIAlign``."""

    def __init__(
        self, output_size: tuple[int, int], scale: float, sampling_ratio: int, aligned: bool
    ) -> None:
        """
        Args:
            output_size: bins down and across.
            scale: cells a pixel.
            sampling_ratio: samples along a bin's side; 0 adapts them.
            aligned: see :func:`roi_align`.
        """
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = scale
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned

    def forward(self, x: Tensor, rois: Tensor) -> Tensor:
        """
        Args:
            x: (N, C, H, W).
            rois: (M, 5), see :func:`roi_align`.

        Returns:
            (M, C, P, Q).
        """
        return roi_align(
            x, rois, self.output_size, self.spatial_scale, self.sampling_ratio, self.aligned
        )


class _ROIAlign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rois: Tensor, *settings: Any) -> Tensor:
        ctx.save_for_backward(rois)
        ctx.shape, ctx.settings = x.shape, settings
        return ops.roi_align(x, rois, *settings)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (rois,) = ctx.saved_tensors
        _, scale, samples, aligned = ctx.settings
        cells, weights = _cells_of_bins(
            rois.to(grad.dtype), ctx.shape, grad.shape[2:], scale, samples, aligned
        )
        return _spread(grad, cells, weights, ctx.shape), None, None, None, None, None


def _spread(grad: Tensor, cells: Tensor, weights: Tensor, shape: torch.Size) -> Tensor:
    """Add each bin's gradient to its cells: the transpose of pooling."""
    images, channels, height, width = shape
    bins = grad.permute(0, 2, 3, 1).reshape(-1, channels)
    out = bins.new_zeros(images * height * width, channels)
    for cell, weight in zip(cells.unbind(1), weights.unbind(1)):
        out.index_add_(0, cell, bins * weight[:, None])
    return out.view(images, height, width, channels).permute(0, 3, 1, 2)


def _cells_of_bins(
    rois: Tensor,
    shape: torch.Size,
    bins: torch.Size,
    scale: float,
    samples: int,
    aligned: bool,
) -> tuple[Tensor, Tensor]:
    """The cells that each bin is a sum of, as indices into (N * H * W), and their weights.

    Returns:
        Two tensors (M * P * Q, 4 S S); a cell may occur several times.
    """
    height, width = shape[2:]
    corners = rois[:, 1:] * scale - (0.5 if aligned else 0.0)
    extent = corners[:, 2:] - corners[:, :2]
    if not aligned:
        extent = extent.clamp(min=1.0)
    row, row_weight = _interpolate(corners[:, 1], extent[:, 1], bins[0], samples, height)
    column, column_weight = _interpolate(corners[:, 0], extent[:, 0], bins[1], samples, width)
    image = rois[:, 0].long().view(-1, 1, 1, 1, 1)
    cells = (image * height + row[:, :, None, :, None]) * width + column[:, None, :, None, :]
    weights = row_weight[:, :, None, :, None] * column_weight[:, None, :, None, :]
    per_bin = 4 * samples * samples
    return cells.view(-1, per_bin), weights.view(-1, per_bin)


def _interpolate(
    start: Tensor, extent: Tensor, bins: int, samples: int, limit: int
) -> tuple[Tensor, Tensor]:
    """Along one side, the two neighbors of each sample and their weights: (M, bins, 2 S) each.

    As torchvision has it, a sample up to one cell outside counts as one on the border, and one
    farther outside as zero.
    """
    bin_size = (extent / bins)[:, None, None]
    index = torch.arange(bins, dtype=start.dtype)[:, None]
    offset = torch.arange(samples, dtype=start.dtype) + 0.5
    position = start[:, None, None] + index * bin_size + offset * bin_size / samples
    share = ((position >= -1) & (position <= limit)).to(start.dtype) / samples
    position = position.clamp(0, limit - 1)
    lower = position.floor()
    upper_weight = (position - lower) * share
    lower_weight = share - upper_weight
    neighbors = torch.cat([lower, (lower + 1).clamp(max=limit - 1)], dim=2)
    return neighbors.long(), torch.cat([lower_weight, upper_weight], dim=2)
