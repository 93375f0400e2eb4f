"""Gives Detectron2's ROI heads a :class:`SkipPooler` in place of their own pooler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from torch import nn

from ...errors import IONError
from ..context import CONTEXT
from .skip_pooler import SkipPooler

# Name of the one feature that Detectron2's constructors are told of: what the skip pooler returns.
_POOLED = "pooled"
# How context joins the other pooled features.
_MERGES = ("concat", "residual")


def with_pooler(
    build: Callable[[CfgNode, dict[str, ShapeSpec]], dict[str, Any]],
    cfg: CfgNode,
    pooler: nn.Module,
    bins: int,
    *,
    head: str,
    prefix: str,
) -> dict[str, Any]:
    """Let Detectron2 build a head over a pooler's output.

    Detectron2 is told of a single feature with the pooler's channels, so that the head fits; then
    the real features and the pooler take the place of that feature and of the pooler it made.

    Args:
        build: Detectron2's function, (cfg, shapes) -> constructor arguments.
        cfg: the full config.
        pooler: has ``out_channels`` and is called with the features and the boxes.
        bins: bins per side of what it returns.
        head: which of "ROI_BOX_HEAD", "ROI_MASK_HEAD" and "ROI_KEYPOINT_HEAD" is built.
        prefix: of the arguments "in_features" and "pooler", e.g. "box_".

    Returns:
        The constructor arguments.
    """
    stand_in = cfg.clone()
    stand_in.defrost()
    stand_in.MODEL.ROI_HEADS.IN_FEATURES = [_POOLED]
    stand_in.MODEL[head].POOLER_RESOLUTION = bins
    arguments = build(stand_in, {_POOLED: ShapeSpec(channels=pooler.out_channels, stride=1)})
    arguments[prefix + "in_features"] = list(cfg.MODEL.ROI_HEADS.IN_FEATURES)
    arguments[prefix + "pooler"] = pooler
    return arguments


def with_skip_pooler(
    build: Callable[[CfgNode, dict[str, ShapeSpec]], dict[str, Any]],
    cfg: CfgNode,
    shapes: dict[str, ShapeSpec],
    *,
    head: str,
    prefix: str,
    out_channels: int | None = None,
) -> dict[str, Any]:
    """Let Detectron2 build a head over a skip pooler of its own.

    Args:
        build: see :func:`with_pooler`, like ``head`` and ``prefix``.
        cfg: the full config.
        shapes: the backbone's features.
        head: also tells the resolution and kind of the pooler.
        prefix: see :func:`with_pooler`.
        out_channels: the pooler's channels; None for ``MODEL.SKIP_POOLER.OUT_CHANNELS``.

    Returns:
        The constructor arguments.
    """
    # First the pooler, then the head: in the order in which an ROI passes them.
    pooler = build_skip_pooler(cfg, shapes, head=head, out_channels=out_channels)
    bins = cfg.MODEL[head].POOLER_RESOLUTION
    return with_pooler(build, cfg, pooler, bins, head=head, prefix=prefix)


def build_skip_pooler(
    cfg: CfgNode,
    shapes: dict[str, ShapeSpec],
    *,
    head: str,
    out_channels: int | None = None,
) -> SkipPooler:
    """Build the skip pooler of one head.

    Args:
        cfg: reads ``MODEL.ROI_HEADS.IN_FEATURES``, ``MODEL.SKIP_POOLER.*`` and the pooler's keys of
            ``MODEL.<head>``.
        shapes: the backbone's features.
        head: see :func:`with_skip_pooler`.
        out_channels: see :func:`with_skip_pooler`.

    Returns:
        The pooler.
    """
    names = list(cfg.MODEL.ROI_HEADS.IN_FEATURES)
    node, pooler = cfg.MODEL[head], cfg.MODEL.SKIP_POOLER
    context = [i for i, name in enumerate(names) if name.startswith(CONTEXT)]
    if pooler.CONTEXT not in _MERGES:
        raise IONError(f"MODEL.SKIP_POOLER.CONTEXT is {pooler.CONTEXT!r}; use one of {_MERGES}.")
    concatenated = pooler.CONTEXT == "concat"
    built = SkipPooler(
        [shapes[name] for name in names],
        output_size=node.POOLER_RESOLUTION,
        sampling_ratio=node.POOLER_SAMPLING_RATIO,
        pooler_type=node.POOLER_TYPE,
        norm=pooler.NORM,
        scale_init=pooler.SCALE_INIT,
        learn_scale=pooler.LEARN_SCALE,
        scale_batches=pooler.SCALE_BATCHES,
        scale_source=_deepest_backbone_feature(names, shapes),
        out_channels=out_channels or pooler.OUT_CHANNELS,
        added=() if concatenated else context,
        gate_init=pooler.CONTEXT_GAIN,
    )
    if concatenated and pooler.CONTEXT_GAIN != 1 and built.reduce is not None:
        for i in context:
            built.weaken(i, pooler.CONTEXT_GAIN)
    return built


def _deepest_backbone_feature(names: list[str], shapes: dict[str, ShapeSpec]) -> int:
    """Index of the feature with the largest stride, the last of several; context only if alone."""
    candidates = [i for i, name in enumerate(names) if not name.startswith(CONTEXT)] or [0]
    return max(candidates, key=lambda i: (shapes[names[i]].stride, i))


def check_heads(cfg: CfgNode, shapes: dict[str, ShapeSpec]) -> None:
    """Refuse a config whose ROI heads cannot pool as it says.

    Args:
        cfg: the full config.
        shapes: the backbone's features.

    Raises:
        IONError: boxes are rotated, there are no classes, or ``MODEL.ROI_HEADS.IN_FEATURES`` is
            empty, names a feature twice or one that the backbone lacks.
    """
    _check_upright(cfg)
    if cfg.MODEL.ROI_HEADS.NUM_CLASSES < 1:
        raise IONError(
            f"MODEL.ROI_HEADS.NUM_CLASSES is {cfg.MODEL.ROI_HEADS.NUM_CLASSES}; give the number of "
            "object classes, which only train_net.py and ion_d2's functions take from the data."
        )
    names = cfg.MODEL.ROI_HEADS.IN_FEATURES
    if not names:
        raise IONError("MODEL.ROI_HEADS.IN_FEATURES is empty; name at least one feature.")
    unknown = [name for name in names if name not in shapes]
    if unknown:
        raise IONError(
            f"MODEL.ROI_HEADS.IN_FEATURES names {', '.join(map(repr, unknown))}, but the backbone "
            f"returns only {', '.join(shapes)}; choose from these or add to the backbone's "
            "OUT_FEATURES."
        )
    if len(set(names)) != len(names):
        raise IONError(f"MODEL.ROI_HEADS.IN_FEATURES names a feature twice: {list(names)}.")


def _check_upright(cfg: CfgNode) -> None:
    rotated = (
        ("MODEL.PROPOSAL_GENERATOR.NAME", cfg.MODEL.PROPOSAL_GENERATOR.NAME, "RRPN", "RPN"),
        (
            "MODEL.ROI_BOX_HEAD.POOLER_TYPE",
            cfg.MODEL.ROI_BOX_HEAD.POOLER_TYPE,
            "ROIAlignRotated",
            "ROIAlignV2",
        ),
    )
    for key, value, bad, good in rotated:
        if value == bad:
            raise IONError(
                f"{key} is {value!r}, which makes rotated boxes; {cfg.MODEL.ROI_HEADS.NAME} pools "
                f"upright ones only, so set it to {good!r}."
            )


def check_no_refinement(cfg: CfgNode, reason: str) -> None:
    """Refuse the paper's box refinement in heads that do without it.

    Args:
        cfg: the full config.
        reason: why they do, as a clause.

    Raises:
        IONError: ``TEST.BOX_REFINEMENT.ENABLED`` is on.
    """
    if cfg.TEST.BOX_REFINEMENT.ENABLED:
        raise IONError(
            f"TEST.BOX_REFINEMENT.ENABLED is True, but MODEL.ROI_HEADS.NAME is "
            f"{cfg.MODEL.ROI_HEADS.NAME!r}, {reason}; switch one of the two."
        )
