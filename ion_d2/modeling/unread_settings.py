"""Settings of a model that its parts would silently ignore."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
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
_BACKBONE = "MODEL.BACKBONE.NAME"
_RPN_HEAD, _ANCHORS = ("MODEL.RPN.HEAD_NAME", "MODEL.ANCHOR_GENERATOR.NAME")
_REFINED, _NORM = ("TEST.BOX_REFINEMENT.ENABLED", "MODEL.SKIP_POOLER.NORM")
# Settings that are read only where another key has some value: that key, its values with which the
# setting is not read, one with which it is, the setting's default and other values that then change
# nothing. Values that are not listed, such as heads of other projects, may read it.
_OF_PARTS: dict[str, tuple[str, set[Any], Any, list[Any]]] = {
    "MODEL.ROI_BOX_HEAD.CLS_INIT_STD": (
        _ROI_HEADS,
        _HEADS - {"IONROIHeads"},
        "IONROIHeads",
        [0.01],
    ),
    "MODEL.ROI_BOX_HEAD.FC_DROPOUT": (_BOX_HEAD, {"FastRCNNConvFCHead"}, "IONBoxHead", [0.5, 0]),
    "MODEL.ROI_BOX_HEAD.PYRAMID_LEVELS": (_ROI_HEADS, _HEADS, "SPPROIHeads", [[6, 3, 2, 1]]),
    "MODEL.ROI_BOX_HEAD.NORM": (_BOX_HEAD, {"IONBoxHead"}, "FastRCNNConvFCHead", [""]),
    "MODEL.SKIP_POOLER.CONTEXT": (_ROI_HEADS, {"SPPROIHeads"}, "IONROIHeads", ["concat"]),
    "MODEL.SKIP_POOLER.LEARN_SCALE": (_NORM, {"none"}, "roi", [True]),
    "MODEL.RPN.MIXED_KERNELS": (_RPN_HEAD, {"StandardRPNHead"}, "IONRPNHead", [[3, 5]]),
    "MODEL.RPN.MIXED_CHANNELS": (_RPN_HEAD, {"StandardRPNHead"}, "IONRPNHead", [[384, 128]]),
    "MODEL.ANCHOR_GENERATOR.SQUARE_SIZES": (
        _ANCHORS,
        {"DefaultAnchorGenerator"},
        "IONAnchorGenerator",
        [[[32]]],
    ),
    "TEST.BOX_REFINEMENT.ROUNDS": (_REFINED, {False}, True, [2]),
    "TEST.BOX_REFINEMENT.VOTE": (_REFINED, {False}, True, [True]),
}
# What chooses a network, and the backbones of that network; the first is the one to name. Further
# settings of a network may stay in a config that exchanges it.
_VGG, _TIMM = ["build_ion_vgg_backbone"], ["build_timm_backbone", "build_timm_fpn_backbone"]
_NETWORKS = {"MODEL.VGG.DEPTH": _VGG, "MODEL.TIMM.NAME": _TIMM, "MODEL.TIMM.WEIGHTS": _TIMM}
_CONTEXT_BACKBONE = "build_ion_context_backbone"

logger = logging.getLogger(__name__)


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
    _check_network(cfg)
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
    for key, (part, without, able, unchanged) in _OF_PARTS.items():
        value, name = value_of(cfg, key), value_of(cfg, part)
        if name in without and value not in (*unchanged, None):  # an older config may lack the key
            raise _ignored(key, value, part, name, unchanged[0], able)


def _check_network(cfg: CfgNode) -> None:
    """Refuse the choice of a network that the backbone is not."""
    part = _network_key(cfg)
    name = value_of(cfg, part)
    for key, able in _NETWORKS.items():
        value, default = value_of(cfg, key), default_of(key)
        if _reads_not(name, able) and value not in (default, None):
            raise _ignored(key, value, part, name, default, able[0])


def _network_key(cfg: CfgNode) -> str:
    has_context = cfg.MODEL.BACKBONE.NAME == _CONTEXT_BACKBONE
    return "MODEL.CONTEXT.BOTTOM_UP" if has_context else _BACKBONE


def _reads_not(backbone: str, able: Sequence[str]) -> bool:
    """Whether a backbone ignores what these read; those of other projects may read anything."""
    builder = BACKBONE_REGISTRY.get(backbone) if backbone in BACKBONE_REGISTRY else None
    known = str(getattr(builder, "__module__", "")).startswith(("detectron2.", "ion_d2."))
    return known and backbone not in able


def tell_unread(cfg: CfgNode, keys: Iterable[str]) -> None:
    """Log a warning for each setting of a part that this model lacks.

    It is no error, so that one command line serves models with and without the part.

    Args:
        cfg: the full config.
        keys: what was given for this run, as on the command line.
    """
    model, network = cfg.MODEL, _network_key(cfg)
    name, features = value_of(cfg, network), model.ROI_HEADS.IN_FEATURES
    no_context = not any(feature.startswith("context") for feature in features)
    # How the settings begin, the key of the part that would read them, and whether it does not.
    parts = (
        ("MODEL.SKIP_POOLER.", _ROI_HEADS, model.ROI_HEADS.NAME in ROI_HEADS),
        ("MODEL.SKIP_POOLER.CONTEXT", "MODEL.ROI_HEADS.IN_FEATURES", no_context),
        ("MODEL.CONTEXT.", _BACKBONE, _reads_not(model.BACKBONE.NAME, [_CONTEXT_BACKBONE])),
        ("MODEL.VGG.", network, _reads_not(name, _VGG)),
        ("MODEL.TIMM.", network, _reads_not(name, _TIMM)),
    )
    for key in keys:
        lacking = [part for start, part, unread in parts if unread and key.startswith(start)]
        if lacking:  # a key of the pooler's context may lack two parts: the first is enough to tell
            told = "%s has no effect on this model, whose %s is %r"
            logger.warning(told, key, lacking[0], value_of(cfg, lacking[0]))


def _ignored(key: str, value: Any, part: str, name: Any, default: Any, able: Any) -> IONError:
    return IONError(
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


def _is_upright_rcnn(cfg: CfgNode) -> bool:
    rotated = cfg.MODEL.PROPOSAL_GENERATOR.NAME == "RRPN"
    name = cfg.MODEL.META_ARCHITECTURE
    return not rotated and not _lacks(META_ARCH_REGISTRY, name, GeneralizedRCNN)


def _lacks(registry: Registry, name: str, base: type) -> bool:
    """Whether a name stands for a class of another family."""
    found = registry.get(name) if name in registry else None
    return isinstance(found, type) and not issubclass(found, base)
