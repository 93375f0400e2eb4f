"""SPPnet (He et al., "Spatial Pyramid Pooling in Deep Convolutional Networks", ECCV 2014).

A baseline: its detector pools 6x6, 3x3, 2x2 and 1x1 bins of conv5.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY
from detectron2.structures import Boxes
from torch import Tensor, nn

from ...value_rules import COUNT, check_value, several
from .ion_roi_heads import IONROIHeads
from .skip_pooler import make_pooler


class PyramidPooler(nn.Module):
    """Pools every ROI at several resolutions and strings all bins together."""

    def __init__(
        self,
        input_shapes: Sequence[ShapeSpec],
        *,
        levels: Sequence[int] = (6, 3, 2, 1),
        sampling_ratio: int = 0,
        pooler_type: str = "ROIPool",
    ) -> None:
        """
        Args:
            input_shapes: channels and stride of each feature that ``forward`` gets.
            levels: bins per side at each level of the pyramid; IONError for none, or one below 1.
            sampling_ratio: see :func:`.skip_pooler.make_pooler`, also for ``pooler_type``.
        """
        super().__init__()
        check_value("MODEL.ROI_BOX_HEAD.PYRAMID_LEVELS", list(levels), several(COUNT))
        self.poolers = nn.ModuleList(
            nn.ModuleList(
                make_pooler(bins, shape.stride, sampling_ratio, pooler_type) for bins in levels
            )
            for shape in input_shapes
        )
        bins = sum(level * level for level in levels)
        self.out_channels = bins * sum(shape.channels for shape in input_shapes)

    def forward(self, features: list[Tensor], boxes: list[Boxes]) -> Tensor:
        """Pool M boxes, in pixels, from features (N, C_l, H_l, W_l) to (M, out_channels, 1, 1).

        The channels are, for each feature and level, its bins as (C, row, column).
        """
        pooled = [
            level([x], boxes).flatten(start_dim=1)
            for x, levels in zip(features, self.poolers)
            for level in levels
        ]
        return torch.cat(pooled, dim=1)[:, :, None, None]


@ROI_HEADS_REGISTRY.register()
class SPPROIHeads(IONROIHeads):
    """ION's heads with a spatial pyramid in place of skip pooling.

    ``MODEL.ROI_BOX_HEAD.PYRAMID_LEVELS`` gives the pyramid; there is no normalization, scale or
    1x1 convolution. SPPnet trains the fully connected layers alone: ``MODEL.BACKBONE.FREEZE_AT`` 5.
    """

    @classmethod
    def _pooler(
        cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec], kind: str
    ) -> tuple[nn.Module, int]:
        if kind != "box":
            return super()._pooler(cfg, input_shape, kind)
        head = cfg.MODEL.ROI_BOX_HEAD
        pooler = PyramidPooler(
            [input_shape[name] for name in cfg.MODEL.ROI_HEADS.IN_FEATURES],
            levels=head.PYRAMID_LEVELS,
            sampling_ratio=head.POOLER_SAMPLING_RATIO,
            pooler_type=head.POOLER_TYPE,
        )
        return pooler, 1
