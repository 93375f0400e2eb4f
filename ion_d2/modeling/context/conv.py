"""Stacked convolutions, to which the paper compares its own context block (sec. 5.4, Table 7)."""

from __future__ import annotations

from typing import Any

import fvcore.nn.weight_init as weight_init
import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor, nn

from ...errors import IONError
from ...layers.precision import in_float32
from .build import CONTEXT_REGISTRY, check_num_stacks, keep_valid
from .normed_conv import NormedConv


@CONTEXT_REGISTRY.register()
class Conv(nn.Module):
    """Stacked convolutions, each with a ReLU: context of a few cells around (Fig. 5a and b)."""

    @configurable
    def __init__(
        self,
        in_channels: int,
        *,
        hidden_dim: int = 512,
        out_dim: int = 512,
        num_stacks: int = 2,
        kernel_size: int = 3,
        norm: str = "",
    ) -> None:
        """
        Args:
            in_channels: channels of the feature that feeds the block.
            hidden_dim: channels of every layer but the last.
            out_dim: channels of the last layer, and so of the context feature.
            num_stacks: number of layers, at least 1.
            kernel_size: side of the kernels in cells, odd.
            norm: normalization behind each convolution, see :func:`build_norm`.

        Raises:
            IONError: ``num_stacks``, ``kernel_size`` or ``norm`` is out of range.
        """
        super().__init__()
        check_num_stacks(num_stacks)
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise IONError(f"MODEL.CONTEXT.KERNEL_SIZE is {kernel_size}; use an odd number.")
        widths = [in_channels, *[hidden_dim] * (num_stacks - 1), out_dim]
        self.convs = nn.ModuleList(
            NormedConv(before, after, kernel_size, norm=norm)
            for before, after in zip(widths, widths[1:])
        )
        for conv in self.convs:
            weight_init.c2_msra_fill(conv)
        self.out_channels = out_dim

    @classmethod
    def from_config(cls, cfg: CfgNode, in_channels: int) -> dict[str, Any]:
        """Read ``MODEL.CONTEXT.*``."""
        context = cfg.MODEL.CONTEXT
        return {
            "in_channels": in_channels,
            "hidden_dim": context.HIDDEN_DIM,
            "out_dim": context.OUT_DIM,
            "num_stacks": context.NUM_STACKS,
            "kernel_size": context.KERNEL_SIZE,
            "norm": context.NORM,
        }

    @in_float32
    def forward(self, x: Tensor, sizes: Tensor | None = None) -> Tensor:
        """
        Args:
            x: (N, C, H, W) feature map.
            sizes: (N, 2), valid (height, width) of each image in cells, or None for all of the map.

        Returns:
            (N, out_channels, H, W) context feature, inside the valid area that of the image alone,
            0 outside.
        """
        x = keep_valid(x, sizes)
        for conv in self.convs:
            # What lies outside is 0 before every layer, as the padding of the image alone would be.
            x = keep_valid(torch.relu(conv(x, sizes)), sizes)
        return x
