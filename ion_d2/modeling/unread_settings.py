"""Settings of a model that its parts would silently ignore."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling import (
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    ROI_HEADS_REGISTRY,
    Backbone,
    GeneralizedRCNN,
    build_backbone,
)
from fvcore.common.registry import Registry

from ..config import default_of
from ..errors import IONError
from ..value_rules import value_of
from .model_values import check_features, check_rpn, check_values

# Detectron2's ROI heads and ION's with the same heads.
ROI_HEADS = {
    "StandardROIHeads": "IONROIHeads",
    "CascadeROIHeads": "IONCascadeROIHeads",
    "Res5ROIHeads": "IONRes5ROIHeads",
}
_HEADS = {*ROI_HEADS, *ROI_HEADS.values()}
# Switches, the key and the registry of the part that must honor them, and one that does.
_SWITCHES = (
    ("MODEL.SEG_REGULARIZER_ON", "MODEL.META_ARCHITECTURE", META_ARCH_REGISTRY, "ION"),
    ("TEST.FLIP_AVERAGING", "MODEL.META_ARCHITECTURE", META_ARCH_REGISTRY, "ION"),
    ("TEST.BOX_REFINEMENT.ENABLED", "MODEL.ROI_HEADS.NAME", ROI_HEADS_REGISTRY, "IONROIHeads"),
    ("TEST.LOSS", "MODEL.META_ARCHITECTURE", META_ARCH_REGISTRY, "GeneralizedRCNN"),
    ("TEST.AUG.ENABLED", "MODEL.META_ARCHITECTURE", META_ARCH_REGISTRY, "GeneralizedRCNN"),
)
_ROI_HEADS, _BOX_HEAD = ("MODEL.ROI_HEADS.NAME", "MODEL.ROI_BOX_HEAD.NAME")
_RPN_HEAD, _ANCHORS = ("MODEL.RPN.HEAD_NAME", "MODEL.ANCHOR_GENERATOR.NAME")
_REFINED = "TEST.BOX_REFINEMENT.ENABLED"
# Settings that are read only where another key has some value: that key, its values with which the
# setting is not read, one with which it is, the setting's default. Values that are not listed, such
# as heads of other projects, may read it.
_OF_PARTS: dict[str, tuple[str, set[Any], Any, Any]] = {
    "MODEL.ROI_BOX_HEAD.CLS_INIT_STD": (_ROI_HEADS, _HEADS - {"IONROIHeads"}, "IONROIHeads", 0.01),
    "MODEL.ROI_BOX_HEAD.PYRAMID_LEVELS": (_ROI_HEADS, _HEADS, "SPPROIHeads", [6, 3, 2, 1]),
    "MODEL.ROI_BOX_HEAD.NORM": (_BOX_HEAD, {"IONBoxHead"}, "FastRCNNConvFCHead", ""),
    "MODEL.SKIP_POOLER.CONTEXT": (_ROI_HEADS, {"SPPROIHeads"}, "IONROIHeads", "concat"),
    "MODEL.SKIP_POOLER.LEARN_SCALE": ("MODEL.SKIP_POOLER.NORM", {"none"}, "roi", True),
    "MODEL.RPN.MIXED_KERNELS": (_RPN_HEAD, {"StandardRPNHead"}, "IONRPNHead", [3, 5]),
    "MODEL.RPN.MIXED_CHANNELS": (_RPN_HEAD, {"StandardRPNHead"}, "IONRPNHead", [384, 128]),
    "MODEL.ANCHOR_GENERATOR.SQUARE_SIZES": (
        _ANCHORS,
        {"DefaultAnchorGenerator"},
        "IONAnchorGenerator",
        [[32]],
    ),
    "TEST.BOX_REFINEMENT.ROUNDS": (_REFINED, {False}, True, 2),
    "TEST.BOX_REFINEMENT.VOTE": (_REFINED, {False}, True, True),
}
# Keys of MODEL.CONTEXT that one kind of block alone reads. Left out are those that shared configs
# and plug_in set whatever the block: TRANSITION, INIT, NORM, BIAS_INIT, DROPOUT and the widths.
_JOINED = ("Chain", "Branches")
_OF_CONTEXTS = {
    **dict.fromkeys(("SHARED_INPUT", "FIRST_STEP_BIAS", "ALL_STACKS"), ("IRNN",)),
    **{"DIRECTIONS": ("IRNN", "RNN"), "NUM_STACKS": ("IRNN", "RNN", "Conv")},
    **{"CELL": ("RNN",), "KERNEL_SIZE": ("Conv",), "PARTS": _JOINED},
}
_CONTEXTS = {"IRNN", "RNN", "Conv", "GlobalAverage", *_JOINED}  # others may read any
# What reads the backbone in each of Detectron2's models and ION's.
_READERS = {
    **dict.fromkeys(("GeneralizedRCNN", "ION"), ("ROI_HEADS", "RPN")),
    **{"PanopticFPN": ("ROI_HEADS", "RPN", "SEM_SEG_HEAD"), "ProposalNetwork": ("RPN",)},
    **{"RetinaNet": ("RETINANET",), "SemanticSegmentor": ("SEM_SEG_HEAD",)},
}


def check_model(cfg: CfgNode) -> None:
    """Refuse a config whose model would ignore a part of it.

    Parts that are not registered are left to the one who builds them.

    Raises:
        IONError: the meta-architecture would not read ION's ROI heads, a pyramid has no stages, a
            value of an R-CNN model is out of its range, or as :func:`check_switches`.
    """
    name, heads = cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.ROI_HEADS.NAME
    if heads in ROI_HEADS.values() and _lacks(META_ARCH_REGISTRY, name, GeneralizedRCNN):
        raise IONError(
            f"MODEL.META_ARCHITECTURE is {name!r}, which has no ROI heads and would ignore "
            f"MODEL.ROI_HEADS.NAME {heads!r}; start from a config of the R-CNN family, or set it "
            "to 'ION'."
        )
    pyramids = (cfg.MODEL.BACKBONE.NAME, cfg.MODEL.CONTEXT.BOTTOM_UP)
    if any("_fpn_" in builder for builder in pyramids) and not cfg.MODEL.FPN.IN_FEATURES:
        raise IONError(
            "MODEL.FPN.IN_FEATURES is empty; name the stages that the pyramid reads, or start from "
            "a config that does, as the files of configs/plug/ do with 'fpn.yaml' and one of "
            "Detectron2's model zoo."
        )
    if _is_upright_rcnn(cfg):
        check_values(cfg)
    check_switches(cfg)


def check_switches(cfg: CfgNode) -> None:
    """Refuse what is switched on in a model that does not have it.

    Raises:
        IONError: a switch is on (segmentation loss or predictions, averaging with the mirrored
            image, box refinement, TEST.LOSS, TEST.AUG) that this meta-architecture or these ROI
            heads do not have, or a setting of what is absent or off is not its default.
    """
    if cfg.TEST.SEM_SEG and not cfg.MODEL.SEG_REGULARIZER_ON:
        raise IONError(
            "TEST.SEM_SEG is True, but the model has no segmentation head without "
            "MODEL.SEG_REGULARIZER_ON; set that to True, for a model trained with it."
        )
    _check_settings_of_parts(cfg)
    for switch, key, registry, able in _SWITCHES:
        name = value_of(cfg, key)
        # ION's further heads, which refine otherwise or not at all, say so when they are built.
        settled = not value_of(cfg, switch) or name in ROI_HEADS.values()
        if not settled and _lacks(registry, name, registry.get(able)):
            raise IONError(
                f"{switch} is True, but {key} is {name!r}, which would ignore it; set that to "
                f"{able!r}."
            )


def _check_settings_of_parts(cfg: CfgNode) -> None:
    for key, (part, without, able, default) in _OF_PARTS.items():
        value, name = value_of(cfg, key), value_of(cfg, part)
        if value not in (default, None) and name in without:  # an older config may lack the key
            raise IONError(
                f"{key} is {value!r}, but {part} is {name!r}, which would ignore it; set it to "
                f"{default!r}, or {part} to {able!r}."
            )


def check_read_features(cfg: CfgNode, backbone: Backbone | None = None) -> None:
    """Refuse features and anchors that a model of the R-CNN family cannot read.

    Args:
        cfg: the full config.
        backbone: the model's; None builds one, for a model that could not be built.

    Raises:
        IONError: one of them, or what building the backbone raises; the message names the key.
    """
    if not _is_upright_rcnn(cfg) or cfg.MODEL.BACKBONE.NAME not in BACKBONE_REGISTRY:
        return
    shapes = (build_backbone(cfg) if backbone is None else backbone).output_shape()
    if cfg.MODEL.PROPOSAL_GENERATOR.NAME == "RPN":
        check_rpn(cfg, shapes)
    check_features("MODEL.ROI_HEADS.IN_FEATURES", cfg.MODEL.ROI_HEADS.IN_FEATURES, shapes)


def check_context_is_read(cfg: CfgNode, features: Sequence[str]) -> None:
    """Refuse a context block that costs its time and trains nothing, and settings it ignores.

    Its parameters would have no gradient, on which distributed training fails. Models and proposal
    generators of other projects may read it by keys of their own.

    Args:
        cfg: the full config.
        features: what the block returns.

    Raises:
        IONError: neither the ROI heads, nor the RPN, nor a segmentation head, nor RetinaNet's reads
            it or its earlier stacks, or a setting of another kind of block is not its default.
    """
    _check_settings_of_context(cfg)
    model = cfg.MODEL
    parts = _readers(model)
    if not parts or model.BACKBONE.NAME != "build_ion_context_backbone":
        return
    keys = " or ".join(f"MODEL.{part}.IN_FEATURES" for part in parts)
    read = {name for part in parts for name in model[part].IN_FEATURES}
    if not any(name.startswith("context") for name in read):
        raise IONError(
            "MODEL.BACKBONE.NAME is 'build_ion_context_backbone', but nothing reads its context: "
            f"name 'context' in {keys}, or set MODEL.BACKBONE.NAME to {model.CONTEXT.BOTTOM_UP!r}."
        )
    if model.CONTEXT.NAME == "Branches":
        branches = [name for name in features if not re.fullmatch(r"context\d+", name)]
        if unread := [name for name in branches if name not in read]:
            raise IONError(
                f"MODEL.CONTEXT.NAME is 'Branches', but nothing reads {', '.join(unread)}; add to "
                f"{keys}, or take the block out of MODEL.CONTEXT.PARTS."
            )
    if model.CONTEXT.ALL_STACKS and not any(re.fullmatch(r"context\d+", name) for name in read):
        raise IONError(
            "MODEL.CONTEXT.ALL_STACKS is True, but nothing reads an earlier stack: name 'context1' "
            f"in {keys}, or set it to False."
        )


def _readers(model: CfgNode) -> list[str]:
    """The parts that read the backbone by their IN_FEATURES; none where that is not known."""
    generator = model.PROPOSAL_GENERATOR.NAME
    parts = [*_READERS.get(model.META_ARCHITECTURE, ())]
    if "RPN" in parts and generator != "RPN":
        parts.remove("RPN")
        if generator != "PrecomputedProposals":
            return []
    return [*parts, "SEM_SEG_HEAD"] if parts and model.SEG_REGULARIZER_ON else parts


def _check_settings_of_context(cfg: CfgNode) -> None:
    context = cfg.MODEL.CONTEXT
    used = {context.NAME, *(context.PARTS if context.NAME in _JOINED else ())}
    for key, kinds in _OF_CONTEXTS.items() if used <= _CONTEXTS else ():
        default = default_of(f"MODEL.CONTEXT.{key}")
        if context[key] != default and not used & {*kinds}:
            raise IONError(
                f"MODEL.CONTEXT.{key} is {context[key]!r}, which is for {' or '.join(kinds)}, but "
                f"MODEL.CONTEXT.NAME is {context.NAME!r}; set it to {default!r}, or the name to "
                f"{kinds[0]!r}."
            )


def _is_upright_rcnn(cfg: CfgNode) -> bool:
    rotated = cfg.MODEL.PROPOSAL_GENERATOR.NAME == "RRPN"
    name = cfg.MODEL.META_ARCHITECTURE
    return not rotated and not _lacks(META_ARCH_REGISTRY, name, GeneralizedRCNN)


def _lacks(registry: Registry, name: str, base: type) -> bool:
    """Whether a name stands for a class of another family."""
    found = registry.get(name) if name in registry else None
    return isinstance(found, type) and not issubclass(found, base)
