"""Detectron2's ROI heads with skip pooling in front of each head (paper Fig. 1)."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY, CascadeROIHeads, Res5ROIHeads
from detectron2.structures import Instances
from torch import Tensor, nn

from ...errors import IONError
from ..trainer_settings import BuiltFromConfig
from .skip_pooler_config import (
    BuildHead,
    build_over,
    build_skip_pooler,
    check_heads,
    check_no_refinement,
    head_key,
)


class SkipPooling(BuiltFromConfig):
    """Skip pooling for the box, mask and keypoint heads; to be mixed into ``StandardROIHeads``.

    Each head pools all of ``MODEL.ROI_HEADS.IN_FEATURES`` at its own resolution, with a
    :class:`~ion_d2.modeling.SkipPooler` of its own. A head that reads feature maps and not pooled
    regions (``POOLER_TYPE`` "", as PointRend's) stays as it is.
    """

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Check the features, then build the heads as the other base class does."""
        check_heads(cfg, input_shape)
        return super().from_config(cfg, input_shape)

    @classmethod
    def _init_box_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        return cls._init_head("box", super()._init_box_head, cfg, input_shape)

    @classmethod
    def _init_mask_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        return cls._init_head("mask", super()._init_mask_head, cfg, input_shape)

    @classmethod
    def _init_keypoint_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        return cls._init_head("keypoint", super()._init_keypoint_head, cfg, input_shape)

    @classmethod
    def _init_head(
        cls, kind: str, build: BuildHead, cfg: CfgNode, input_shape: dict[str, ShapeSpec]
    ) -> dict[str, Any]:
        """Build a head, over a pooler of its own if it is on and reads pooled regions."""
        is_on = kind == "box" or cfg.MODEL[f"{kind.upper()}_ON"]
        pools = kind == "box" or cfg.MODEL[head_key(kind)].POOLER_TYPE
        if not (is_on and pools):
            return build(cfg, input_shape)
        return build_over(*cls._pooler(cfg, input_shape, kind), build, cfg, kind)

    @classmethod
    def _pooler(
        cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec], kind: str
    ) -> tuple[nn.Module, int]:
        """Build the pooler of a "box", "mask" or "keypoint" head, and tell its bins per side."""
        bins = cfg.MODEL[head_key(kind)].POOLER_RESOLUTION
        return build_skip_pooler(cfg, input_shape, kind), bins


@ROI_HEADS_REGISTRY.register()
class IONCascadeROIHeads(SkipPooling, CascadeROIHeads):
    """Detectron2's Cascade R-CNN heads with skip pooling: all stages share one box pooler."""

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Read ``MODEL.ROI_*`` and ``MODEL.SKIP_POOLER``."""
        check_no_refinement(cfg, "whose stages refine the boxes already")
        return super().from_config(cfg, input_shape)

    def _run_stage(
        self, features: list[Tensor], proposals: list[Instances], stage: int
    ) -> tuple[Tensor, Tensor]:
        self.box_pooler.measures = stage == 0
        return super()._run_stage(features, proposals, stage)


@ROI_HEADS_REGISTRY.register()
class IONRes5ROIHeads(BuiltFromConfig, Res5ROIHeads):
    """Detectron2's heads of "C4" models with skip pooling: it feeds res5, which stays the head.

    The pooler's output has the channels that res5 reads (1024 for ResNet-50), so that res5 keeps
    its ImageNet weights; ``MODEL.SKIP_POOLER.OUT_CHANNELS`` is not used. The mask head, as in every
    C4 model, reads what res5 makes of the same pooled regions.
    """

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Read ``MODEL.ROI_*``, ``MODEL.RESNETS`` and ``MODEL.SKIP_POOLER``."""
        check_heads(cfg, input_shape)
        check_no_refinement(cfg, "which does not have it")
        if cfg.MODEL.KEYPOINT_ON:
            raise IONError(
                "MODEL.KEYPOINT_ON is True, but MODEL.ROI_HEADS.NAME is 'IONRes5ROIHeads', which "
                "has no keypoint head; use 'IONROIHeads'."
            )
        # res5 reads res4, whose width is 2 ** 2 times that of res2.
        pooler = build_skip_pooler(cfg, input_shape, "box", cfg.MODEL.RESNETS.RES2_OUT_CHANNELS * 4)
        bins = cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION
        return build_over(pooler, bins, super().from_config, cfg, "box")
