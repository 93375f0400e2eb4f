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
            return pool_in_threads(x, rois, self)
        return super().forward(x, rois.to(x.dtype))

    def pool(self, x: Tensor, rois: Tensor) -> tuple[Tensor, None]:
        """See :class:`.channel_threads.Pooling`."""
        return torch.ops.torchvision.roi_align(x, rois, *self._bins, *self._samples), None

    def spread(self, grad: Tensor, rois: Tensor, known: None, shape: torch.Size) -> Tensor:
        """See :class:`.channel_threads.Pooling`."""
        return torch.ops.torchvision._roi_align_backward(
            grad, rois, *self._bins, *shape, *self._samples
        )

    @property
    def _bins(self) -> tuple[float, int, int]:
        return self.spatial_scale, *self.output_size

    @property
    def _samples(self) -> tuple[int, bool]:
        return self.sampling_ratio, self.aligned
