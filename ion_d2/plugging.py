"""Switches ION on in other configs of Detectron2."""

from __future__ import annotations

import re
from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN

from .errors import IONError
from .modeling.backbone.context_backbone import CONTEXT

CONTEXT_BACKBONE = "build_ion_context_backbone"
# Detectron2's ROI heads and ION's with the same heads.
ROI_HEADS = {
    "StandardROIHeads": "IONROIHeads",
    "CascadeROIHeads": "IONCascadeROIHeads",
    "Res5ROIHeads": "IONRes5ROIHeads",
}


def plug_in(cfg: CfgNode) -> dict[str, Any]:
    """Switch context and skip pooling on in a config of Detectron2's R-CNN family.

    The context block reads the deepest feature that the ROI heads read; these then pool their
    features and "context". Where they had read one stage of a ResNet (C4, DC5), they pool that
    stage and those before it, from res2 on. The heads keep the shapes of their weights, so that a
    checkpoint of the plain model still fits them.

    Args:
        cfg: a config with ION's keys, changed in place.

    Returns:
        The overrides, config key -> value, that would have done the same in a YAML file.

    Raises:
        IONError: the config has no ROI heads that ION's can replace, or has ION's already.
    """
    _check_pluggable(cfg)
    overrides = _overrides(cfg)
    pairs = [item for pair in overrides.items() for item in pair]
    cfg.merge_from_list(pairs)
    return overrides


def check_meta_architecture(cfg: CfgNode) -> None:
    """Refuse a config whose meta-architecture would ignore ION's ROI heads.

    Args:
        cfg: the full config.

    Raises:
        IONError: ``MODEL.META_ARCHITECTURE`` has no ROI heads, but ``MODEL.ROI_HEADS.NAME`` is one
            of ION's.
    """
    name, heads = cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.ROI_HEADS.NAME
    if heads not in ROI_HEADS.values() or name not in META_ARCH_REGISTRY:
        return
    found = META_ARCH_REGISTRY.get(name)
    if isinstance(found, type) and not issubclass(found, GeneralizedRCNN):
        raise IONError(
            f"MODEL.META_ARCHITECTURE is {name!r}, which has no ROI heads and would ignore "
            f"MODEL.ROI_HEADS.NAME {heads!r}; start from a config of the R-CNN family, or set it "
            "to 'ION'."
        )


def _check_pluggable(cfg: CfgNode) -> None:
    model = cfg.MODEL
    if model.META_ARCHITECTURE != "GeneralizedRCNN":
        raise IONError(
            f"MODEL.META_ARCHITECTURE is {model.META_ARCHITECTURE!r}; ION plugs into the ROI heads "
            "of 'GeneralizedRCNN' (Faster, Mask, Keypoint and Cascade R-CNN), so start from such a "
            "config."
        )
    if model.PROPOSAL_GENERATOR.NAME == "RRPN":
        raise IONError(
            "MODEL.PROPOSAL_GENERATOR.NAME is 'RRPN', which makes rotated boxes; ION pools upright "
            "ones only, so start from a config with 'RPN'."
        )
    if model.ROI_HEADS.NAME not in ROI_HEADS:
        raise IONError(
            f"MODEL.ROI_HEADS.NAME is {model.ROI_HEADS.NAME!r}; ION has its own version of "
            f"{', '.join(ROI_HEADS)} only."
        )


def _overrides(cfg: CfgNode) -> dict[str, Any]:
    model = cfg.MODEL
    read = list(model.ROI_HEADS.IN_FEATURES)
    pooled = _stages_to(read[0]) if len(read) == 1 else read
    overrides: dict[str, Any] = {
        "MODEL.META_ARCHITECTURE": "ION",
        "MODEL.BACKBONE.NAME": CONTEXT_BACKBONE,
        "MODEL.CONTEXT.BOTTOM_UP": model.BACKBONE.NAME,
        "MODEL.CONTEXT.IN_FEATURE": read[-1],
        "MODEL.ROI_HEADS.NAME": ROI_HEADS[model.ROI_HEADS.NAME],
        "MODEL.ROI_HEADS.IN_FEATURES": [*pooled, CONTEXT],
        # The paper's 1000 is the amplitude of VGG16: measure this backbone's.
        "MODEL.SKIP_POOLER.SCALE_INIT": 0.0,
        "MODEL.SKIP_POOLER.OUT_CHANNELS": _channels(cfg, read[-1]),
    }
    if pooled != read:
        overrides["MODEL.RESNETS.OUT_FEATURES"] = pooled
    return overrides


def _stages_to(name: str) -> list[str]:
    """The stages of a ResNet up to a given one; another kind of feature stays alone."""
    found = re.fullmatch(r"res([2-5])", name)
    return [f"res{i}" for i in range(2, int(found[1]) + 1)] if found else [name]


def _channels(cfg: CfgNode, name: str) -> int:
    """Channels of the feature that the heads were made for."""
    found = re.fullmatch(r"res([2-5])", name)
    if found:
        return cfg.MODEL.RESNETS.RES2_OUT_CHANNELS * 2 ** (int(found[1]) - 2)
    return cfg.MODEL.FPN.OUT_CHANNELS
