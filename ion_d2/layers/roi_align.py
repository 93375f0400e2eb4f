"""ROIAlign whose gradient is fast on a CPU.

torchvision's CPU operator computes each sample's weights again for every channel and adds to memory
that lies far apart. A bin is a weighted sum of cells: here the weights are computed once for all
channels, and all channels of a cell, lying side by side, are added at once. The values are
torchvision's own, the gradients equal its up to the order of their sums.

Shape shorthand: M is the number of ROIs, P and Q the bins down and across, S the samples along a
bin's side.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
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
    settings = (output_size, scale, sampling_ratio, aligned)
    needs_gradient = torch.is_grad_enabled() and x.requires_grad
    fast = x.device.type == "cpu" and sampling_ratio > 0 and needs_gradient
    return (_ROIAlign.apply if fast else ops.roi_align)(x, rois.to(x.dtype), *settings)


class ROIAlign(ops.RoIAlign):
    """:func:`roi_align` as a module, in place of torchvision's or Detectron2's."""

    def forward(self, x: Tensor, rois: Tensor) -> Tensor:
        """Pool (N, C, H, W) to (M, C, P, Q), see :func:`roi_align`."""
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
        """Add each bin's gradient to its cells: the transpose of pooling."""
        images, channels, height, width = ctx.shape
        rois = ctx.saved_tensors[0].to(grad.dtype)
        bins = grad.permute(0, 2, 3, 1).reshape(-1, channels)
        out = bins.new_zeros(images * height * width, channels)
        cells, weights = _cells_of_bins(rois, height, width, *ctx.settings)
        for cell, weight in zip(cells.unbind(1), weights.unbind(1)):
            out.index_add_(0, cell, bins * weight[:, None])
        x_grad = out.view(images, height, width, channels).permute(0, 3, 1, 2)
        return x_grad, None, None, None, None, None


def _cells_of_bins(
    rois: Tensor,
    height: int,
    width: int,
    bins: tuple[int, int],
    scale: float,
    samples: int,
    aligned: bool,
) -> tuple[Tensor, Tensor]:
    """The cells of which each bin is a sum, as indices into (N * H * W), and their weights.

    Two tensors (M * P * Q, 4 S S); a cell may occur several times.
    """
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

    As in torchvision, a sample up to one cell outside counts as one on the border, and one farther
    outside as zero.
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
