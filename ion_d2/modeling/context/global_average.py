"""The mean of the whole map, to which the paper compares its context block (sec. 5.4, Table 7)."""

from __future__ import annotations

import torch
from detectron2.config import configurable
from torch import Tensor

from ...layers.irnn.arguments import compute_dtype, valid_mask
from ...layers.precision import in_float32
from ..backbone.norms import build_norm
from .build import CONTEXT_REGISTRY, ContextBlock


@CONTEXT_REGISTRY.register()
class GlobalAverage(ContextBlock):
    """The mean over all cells, repeated at each: "global average and unpool" (Fig. 5c).

    Without a normalization it has no parameters.
    """

    @configurable
    def __init__(self, in_channels: int, *, norm: str = "") -> None:
        """
        Args:
            in_channels: channels of the feature that feeds the block, and of the context feature.
            norm: normalization of the means, see :func:`build_norm`; without a ReLU. "BRN" passes
                no gradient to a lone image (``SOLVER.IMS_PER_PASS`` 1), which is its own mean.

        Raises:
            IONError: unknown ``norm``.
        """
        super().__init__()
        self.norm = build_norm(norm, in_channels, masked=True)
        self.out_channels = in_channels

    @in_float32
    def forward(self, x: Tensor, sizes: Tensor | None = None) -> Tensor:
        """Each image's mean over its valid cells, at these cells; see ``CONTEXT_REGISTRY``."""
        if sizes is None:
            # Not a constant in a trace, which serves maps of any size.
            sizes = torch._shape_as_tensor(x)[2:].to(x.device).expand(x.shape[0], 2)
        valid = valid_mask(sizes, x.shape[2], x.shape[3], x.device)
        dtype = compute_dtype(x.dtype)
        total = x.to(dtype).masked_fill(~valid, 0.0).sum(dim=(2, 3), keepdim=True)
        mean = total / valid.sum(dim=(2, 3), keepdim=True).clamp(min=1)
        if self.norm is not None:
            # Every image counts once, whatever its size.
            mean = self.norm(mean)
        return (mean * valid).to(x.dtype)
