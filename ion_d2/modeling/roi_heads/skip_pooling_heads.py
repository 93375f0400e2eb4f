"""Detectron2's ROI heads with a :class:`SkipPooler` in front of each head (paper Fig. 1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY, CascadeROIHeads, Res5ROIHeads
from torch import nn

from ...errors import IONError
from ...value_rules import changed, check_value, one_of
from ..context import CONTEXT
from ..model_values import check_features, deepest_of
from ..trainer_settings import BuiltFromConfig
from .skip_pooler import KINDS, SkipPooler

# Makes the constructor arguments of a head for features of such shapes.
BuildHead = Callable[[CfgNode, dict[str, ShapeSpec]], dict[str, Any]]


class SkipPooling(BuiltFromConfig):
    """Skip pooling for the box, mask and keypoint heads; to be mixed into ``StandardROIHeads``.

    Each head pools all of ``MODEL.ROI_HEADS.IN_FEATURES`` at its own resolution, with a
    :class:`~ion_d2.modeling.SkipPooler` of its own. A head that reads feature maps and not pooled
    regions (``POOLER_TYPE`` "", as PointRend's) stays as it is.
    """

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
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
        is_on = cfg.MODEL.get(f"{kind.upper()}_ON", True)  # there is always a box head
        if not (is_on and (kind == "box" or cfg.MODEL[head_key(kind)].POOLER_TYPE)):
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
        check_no_refinement(cfg, "whose stages refine the boxes already")
        return super().from_config(cfg, input_shape)


@ROI_HEADS_REGISTRY.register()
class IONRes5ROIHeads(BuiltFromConfig, Res5ROIHeads):
    """Detectron2's heads of "C4" models with skip pooling: it feeds res5, which stays the head.

    The pooler's output has the channels that res5 reads (1024 for ResNet-50), so that res5 keeps
    its ImageNet weights; ``MODEL.SKIP_POOLER.OUT_CHANNELS`` is not used. The mask head, as in every
    C4 model, reads what res5 makes of the same pooled regions.
    """

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
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


def build_over(
    pooler: nn.Module, bins: int, build: BuildHead, cfg: CfgNode, kind: str
) -> dict[str, Any]:
    """Let Detectron2, or who derives from it, build a head that reads a pooler's output.

    What builds a "box", "mask" or "keypoint" head there knows poolers of one feature only, or of a
    pyramid of equal widths. So it is shown a single feature as wide as the pooler's
    ``out_channels``, of ``bins`` per side, and its own pooler is replaced.
    """
    values = {
        "MODEL.ROI_HEADS.IN_FEATURES": ["pooled"],
        f"MODEL.{head_key(kind)}.POOLER_RESOLUTION": bins,
    }
    arguments = build(
        changed(cfg, values), {"pooled": ShapeSpec(channels=pooler.out_channels, stride=1)}
    )
    prefix = "" if "pooler" in arguments else f"{kind}_"  # C4's heads share the one pooler
    measured = getattr(pooler, "scale_pooler", None) is not None
    apart = [cfg.MODEL.CONTEXT.IN_FEATURE] if measured else []
    arguments[f"{prefix}in_features"] = [*cfg.MODEL.ROI_HEADS.IN_FEATURES, *apart]
    arguments[f"{prefix}pooler"] = pooler
    return arguments


def head_key(kind: str) -> str:
    """The key below ``MODEL`` of the "box", "mask" or "keypoint" head."""
    return f"ROI_{kind.upper()}_HEAD"


def build_skip_pooler(
    cfg: CfgNode, shapes: dict[str, ShapeSpec], kind: str, out_channels: int | None = None
) -> SkipPooler:
    """Build the skip pooler of a "box", "mask" or "keypoint" head on the backbone's features.

    ``out_channels`` goes before ``MODEL.SKIP_POOLER.OUT_CHANNELS``.
    """
    names = list(cfg.MODEL.ROI_HEADS.IN_FEATURES)
    head, settings = cfg.MODEL[head_key(kind)], cfg.MODEL.SKIP_POOLER
    check_value(f"MODEL.{head_key(kind)}.POOLER_TYPE", head.POOLER_TYPE, KINDS)
    check_value("MODEL.SKIP_POOLER.CONTEXT", settings.CONTEXT, one_of("concat", "residual"))
    context = [i for i, name in enumerate(names) if name.startswith(CONTEXT)]
    measured = [name for name in names if not name.startswith(CONTEXT)] or names[:1]
    concatenated = settings.CONTEXT == "concat"
    pooler = SkipPooler(
        [shapes[name] for name in names],
        output_size=head.POOLER_RESOLUTION,
        sampling_ratio=head.POOLER_SAMPLING_RATIO,
        pooler_type=head.POOLER_TYPE,
        norm=settings.NORM,
        scale_init=settings.SCALE_INIT,
        learn_scale=settings.LEARN_SCALE,
        scale_batches=settings.SCALE_BATCHES,
        scale_source=names.index(deepest_of(measured, shapes)),
        scale_shape=_shape_measured_apart(cfg, shapes),
        out_channels=out_channels or settings.OUT_CHANNELS,
        merge_gain=settings.MERGE_GAIN,
        added=() if concatenated else context,
        gate_init=settings.CONTEXT_GAIN,
    )
    if concatenated and context and settings.CONTEXT_GAIN != 1:
        if pooler.reduce is None:
            raise IONError(
                f"MODEL.SKIP_POOLER.CONTEXT_GAIN is {settings.CONTEXT_GAIN}, but context alone "
                "with MODEL.SKIP_POOLER.NORM 'none' is not merged; set it to 1."
            )
        for i in context:
            pooler.weaken(i, settings.CONTEXT_GAIN)
    return pooler


def _shape_measured_apart(cfg: CfgNode, shapes: dict[str, ShapeSpec]) -> ShapeSpec | None:
    """The shape of the feature on which the scale is measured, if it is not one of those merged.

    Context that is pooled alone gets the scale that it would have beside the feature that its block
    reads, so that this one is measured.
    """
    settings = cfg.MODEL.SKIP_POOLER
    measures = settings.NORM != "none" and settings.SCALE_INIT == 0
    alone = all(name.startswith(CONTEXT) for name in cfg.MODEL.ROI_HEADS.IN_FEATURES)
    if measures and alone and settings.CONTEXT == "concat":
        return shapes.get(cfg.MODEL.CONTEXT.IN_FEATURE)
    return None


def check_heads(cfg: CfgNode, shapes: dict[str, ShapeSpec]) -> None:
    """Raise an IONError if boxes are rotated, or there are no classes or no such features."""
    heads = cfg.MODEL.ROI_HEADS
    if cfg.MODEL.PROPOSAL_GENERATOR.NAME == "RRPN":
        raise IONError(
            "MODEL.PROPOSAL_GENERATOR.NAME is 'RRPN', which makes rotated boxes; "
            f"{heads.NAME} pools upright ones only, so set it to 'RPN'."
        )
    if heads.NUM_CLASSES < 1:
        raise IONError(
            f"MODEL.ROI_HEADS.NUM_CLASSES is {heads.NUM_CLASSES}; give the number of object "
            "classes, which only train_net.py and ion_d2's functions take from the data."
        )
    check_features("MODEL.ROI_HEADS.IN_FEATURES", heads.IN_FEATURES, shapes)


def check_no_refinement(cfg: CfgNode, reason: str) -> None:
    """Raise an IONError if ``TEST.BOX_REFINEMENT`` is on; ``reason`` is a clause on the heads."""
    if cfg.TEST.BOX_REFINEMENT.ENABLED:
        raise IONError(
            "TEST.BOX_REFINEMENT.ENABLED is True, but MODEL.ROI_HEADS.NAME is "
            f"{cfg.MODEL.ROI_HEADS.NAME!r}, {reason}; set TEST.BOX_REFINEMENT.ENABLED to False."
        )
