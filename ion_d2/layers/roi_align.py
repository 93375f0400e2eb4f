"""torchvision's ROIAlign, in training by all threads of a CPU."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision import ops

from .channel_threads import pool_in_threads


class ROIAlign(ops.RoIAlign):
    """In place of torchvision's or Detectron2's; the same results, bit for bit."""

    def forward(self, x: Tensor, rois: Tensor) -> Tensor:
        """Pool (N, C, H, W) over ROIs (M, 5), of any floating point, to (M, C, P, Q)."""
        if x.device.type == "cpu" and torch.is_grad_enabled() and x.requires_grad:
            return pool_in_threads(x, rois, _Align(self))
        return super().forward(x, rois.to(x.dtype))


class _Align:
    """What :func:`pool_in_threads` calls: torchvision's operator and its gradient."""

    def __init__(self, layer: ROIAlign) -> None:
        self.size: tuple[int, int] = layer.output_size
        self.arguments = (layer.spatial_scale, *self.size)
        self.sampling = (layer.sampling_ratio, layer.aligned)

    def pool(self, x: Tensor, rois: Tensor) -> tuple[Tensor, None]:
        return torch.ops.torchvision.roi_align(x, rois, *self.arguments, *self.sampling), None

    def spread(self, grad: Tensor, rois: Tensor, known: None, shape: torch.Size) -> Tensor:
        return torch.ops.torchvision._roi_align_backward(
            grad, rois, *self.arguments, *shape, *self.sampling
        )
