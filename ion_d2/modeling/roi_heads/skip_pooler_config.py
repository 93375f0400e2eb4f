"""Gives Detectron2's ROI heads a :class:`SkipPooler` in place of their own pooler."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from torch import nn

from ...errors import IONError
from ...value_rules import check_value, one_of, value_of
from ..context import CONTEXT
from ..model_values import check_features
from .skip_pooler import KINDS, SkipPooler

# Makes the constructor arguments of a head for features of such shapes.
BuildHead = Callable[[CfgNode, dict[str, ShapeSpec]], dict[str, Any]]


def build_over(
    pooler: nn.Module, bins: int, build: BuildHead, cfg: CfgNode, kind: str
) -> dict[str, Any]:
    """Let Detectron2, or who derives from it, build a head that reads a pooler's output.

    What builds a "box", "mask" or "keypoint" head there knows poolers of one feature only, or of a
    pyramid of equal widths. So it is shown a single feature as wide as the pooler's
    ``out_channels``, of ``bins`` per side, and its own pooler is replaced.
    """
    alone = cfg.clone()
    alone.defrost()
    alone.MODEL.ROI_HEADS.IN_FEATURES = ["pooled"]
    alone.MODEL[head_key(kind)].POOLER_RESOLUTION = bins
    arguments = build(alone, {"pooled": ShapeSpec(channels=pooler.out_channels, stride=1)})
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
        scale_source=_deepest_backbone_feature(names, shapes),
        scale_shape=_shape_measured_apart(cfg, shapes),
        out_channels=out_channels or settings.OUT_CHANNELS,
        merge_gain=settings.MERGE_GAIN,
        added=() if concatenated else context,
        gate_init=settings.CONTEXT_GAIN,
    )
    if concatenated and settings.CONTEXT_GAIN != 1 and pooler.reduce is not None:
        for i in context:
            pooler.weaken(i, settings.CONTEXT_GAIN)
    return pooler


def _deepest_backbone_feature(names: list[str], shapes: dict[str, ShapeSpec]) -> int:
    """Index of the deepest feature; context only if alone."""
    candidates = [name for name in names if not name.startswith(CONTEXT)] or names[:1]
    return names.index(deepest_of(candidates, shapes))


def _shape_measured_apart(cfg: CfgNode, shapes: dict[str, ShapeSpec]) -> ShapeSpec | None:
    """What the scale is measured on, if on a feature that is not merged.

    Context alone gets the amplitude that it has beside the feature its block reads: that one's.
    """
    settings = cfg.MODEL.SKIP_POOLER
    measures = settings.NORM != "none" and settings.SCALE_INIT == 0
    alone = all(name.startswith(CONTEXT) for name in cfg.MODEL.ROI_HEADS.IN_FEATURES)
    if measures and alone and settings.CONTEXT == "concat":
        return shapes.get(cfg.MODEL.CONTEXT.IN_FEATURE)
    return None


def deepest_of(names: Sequence[str], shapes: Mapping[str, ShapeSpec]) -> str:
    """The feature with the largest stride, the last of several."""
    return max(reversed(names), key=lambda name: shapes[name].stride)


def check_heads(cfg: CfgNode, shapes: dict[str, ShapeSpec]) -> None:
    """Raise an IONError if boxes are rotated, or there are no classes or no such features."""
    heads = cfg.MODEL.ROI_HEADS
    for key, rotated, upright in (
        ("MODEL.PROPOSAL_GENERATOR.NAME", "RRPN", "RPN"),
        ("MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIAlignRotated", "ROIAlignV2"),
    ):
        if value_of(cfg, key) == rotated:
            raise IONError(
                f"{key} is {rotated!r}, which makes rotated boxes; {heads.NAME} pools upright ones "
                f"only, so set it to {upright!r}."
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
