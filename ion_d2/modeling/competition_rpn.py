"""The RPN of ION's entry to the COCO competition of 2015 (supplement of the paper).

Known: 3x3 (384 channels) and 5x5 (128) convolutions, mixed; 22 anchors a location, one of 32x32 and
those of three aspect ratios (1:2, 1:1, 2:1) at seven scales (64, 90.5, 128, 181, 256, 362, 512).
Not known, and chosen here: the two read the same feature in parallel and are concatenated after a
ReLU each, to 512 channels like VGG16's RPN; a scale is the square root of an anchor's area; layers
start as in Detectron2's RPN. The competition's network had two further convolutions after conv5.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import (
    ANCHOR_GENERATOR_REGISTRY,
    BufferList,
    DefaultAnchorGenerator,
)
from detectron2.modeling.proposal_generator import RPN_HEAD_REGISTRY, StandardRPNHead
from torch import Tensor, nn

from ..errors import IONError
from .model_values import nested
from .trainer_settings import BuiltFromConfig


class MixedConv(nn.Module):
    """Convolutions of several kernel sizes side by side, each with a ReLU, concatenated."""

    def __init__(self, in_channels: int, kernels: Sequence[int], channels: Sequence[int]) -> None:
        """Make convolutions of odd ``kernels`` (sizes in cells) with so many ``channels`` each.

        Raises:
            IONError: the two lists do not fit together, or hold a value that no convolution has.
        """
        super().__init__()
        values = f"MODEL.RPN.MIXED_KERNELS is {kernels} and MODEL.RPN.MIXED_CHANNELS {channels}"
        if not kernels or len(kernels) != len(channels):
            raise IONError(f"{values}; give as many of one as of the other, and at least one.")
        if any(k < 1 or k % 2 == 0 for k in kernels) or any(c < 1 for c in channels):
            raise IONError(f"{values}; kernels must be odd, and both positive.")
        self.convs = nn.ModuleList(
            nn.Conv2d(in_channels, c, kernel_size=k, padding=k // 2)
            for k, c in zip(kernels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, sum of channels, H, W)."""
        return torch.cat([conv(x).relu_() for conv in self.convs], dim=1)


@RPN_HEAD_REGISTRY.register()
class IONRPNHead(BuiltFromConfig, StandardRPNHead):
    """Detectron2's RPN head with mixed convolutions in place of the 3x3 one; see the module."""

    @configurable
    def __init__(
        self,
        *,
        in_channels: int,
        num_anchors: int,
        box_dim: int = 4,
        kernels: Sequence[int] = (3, 5),
        channels: Sequence[int] = (384, 128),
    ) -> None:
        """``kernels`` and ``channels`` as in :class:`MixedConv`, the rest as in Detectron2."""
        # Its layers are replaced below, but its forward pass is kept.
        super().__init__(in_channels=in_channels, num_anchors=num_anchors, box_dim=box_dim)
        self.conv = MixedConv(in_channels, kernels, channels)
        self.objectness_logits = nn.Conv2d(sum(channels), num_anchors, kernel_size=1)
        self.anchor_deltas = nn.Conv2d(sum(channels), num_anchors * box_dim, kernel_size=1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: list[ShapeSpec]) -> dict[str, Any]:
        """Read ``MODEL.RPN.MIXED_KERNELS`` and ``MODEL.RPN.MIXED_CHANNELS``.

        Raises:
            IONError: ``MODEL.RPN.CONV_DIMS`` asks for other convolutions.
        """
        ret = super().from_config(cfg, input_shape)
        dims = ret.pop("conv_dims", [-1])  # which Detectron2 0.5 may not have
        if list(dims) != [-1]:
            raise IONError(
                f"MODEL.RPN.CONV_DIMS is {dims}, which MODEL.RPN.HEAD_NAME 'IONRPNHead' would "
                "ignore; set it to [-1], and choose channels with MODEL.RPN.MIXED_CHANNELS."
            )
        rpn = cfg.MODEL.RPN
        return {**ret, "kernels": rpn.MIXED_KERNELS, "channels": rpn.MIXED_CHANNELS}


@ANCHOR_GENERATOR_REGISTRY.register()
class IONAnchorGenerator(BuiltFromConfig, DefaultAnchorGenerator):
    """Square anchors of further sizes before Detectron2's, every size in every aspect ratio."""

    @configurable
    def __init__(
        self, *, square_sizes: Sequence[Sequence[float]] | Sequence[float], **kwargs: Any
    ) -> None:
        """``square_sizes``: sides in pixels, a list for each feature or one list for all.

        Raises:
            IONError: there are more or fewer lists than features.
        """
        super().__init__(**kwargs)
        per_feature = nested(square_sizes)
        if len(per_feature) == 1:
            per_feature *= self.num_features
        if len(per_feature) != self.num_features:
            raise IONError(
                f"MODEL.ANCHOR_GENERATOR.SQUARE_SIZES has {len(per_feature)} lists, but "
                f"MODEL.RPN.IN_FEATURES {self.num_features} features; give one list of sides for "
                "each, or one for all."
            )
        self.cell_anchors: BufferList = BufferList(
            torch.cat([self.generate_cell_anchors(squares, (1.0,)).reshape(-1, 4), anchors])
            for squares, anchors in zip(per_feature, self.cell_anchors)
        )

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: list[ShapeSpec]) -> dict[str, Any]:
        square_sizes = cfg.MODEL.ANCHOR_GENERATOR.SQUARE_SIZES
        return {**super().from_config(cfg, input_shape), "square_sizes": square_sizes}
