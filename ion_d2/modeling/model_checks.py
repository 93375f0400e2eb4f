"""Settings of a model that its parts would ignore without a word."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode
from detectron2.modeling import (
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    ROI_HEADS_REGISTRY,
    GeneralizedRCNN,
    build_backbone,
)
from fvcore.common.registry import Registry

from ..errors import IONError
from .model_values import check_features, check_rpn, check_values

# Detectron2's ROI heads and ION's with the same heads.
ROI_HEADS = {
    "StandardROIHeads": "IONROIHeads",
    "CascadeROIHeads": "IONCascadeROIHeads",
    "Res5ROIHeads": "IONRes5ROIHeads",
}


def check_model(cfg: CfgNode) -> None:
    """Refuse a config whose model would ignore a part of it.

    Parts that are not registered are left to the one who builds them.

    Args:
        cfg: the full config.

    Raises:
        IONError: ``MODEL.META_ARCHITECTURE`` has no ROI heads, but ``MODEL.ROI_HEADS.NAME`` is one
            of ION's; or the segmentation loss, its predictions, the averaging with the mirrored
            image or the refinement of boxes is switched on in a model that does not have it.
    """
    name = cfg.MODEL.META_ARCHITECTURE
    heads = cfg.MODEL.ROI_HEADS.NAME
    if heads in ROI_HEADS.values() and _lacks(META_ARCH_REGISTRY, name, GeneralizedRCNN):
        raise IONError(
            f"MODEL.META_ARCHITECTURE is {name!r}, which has no ROI heads and would ignore "
            f"MODEL.ROI_HEADS.NAME {heads!r}; start from a config of the R-CNN family, or set it "
            "to 'ION'."
        )
    rotated = cfg.MODEL.PROPOSAL_GENERATOR.NAME == "RRPN"
    if not rotated and not _lacks(META_ARCH_REGISTRY, name, GeneralizedRCNN):
        check_values(cfg)
        if cfg.MODEL.BACKBONE.NAME in BACKBONE_REGISTRY:
            _check_features(cfg)
    check_switches(cfg)


def check_switches(cfg: CfgNode) -> None:
    """Refuse what is switched on in a model that does not have it.

    Args:
        cfg: the full config.

    Raises:
        IONError: the segmentation loss, its predictions, the averaging with the mirrored image or
            the refinement of boxes is.
    """
    name = cfg.MODEL.META_ARCHITECTURE
    heads = cfg.MODEL.ROI_HEADS.NAME
    for key, on in (
        ("MODEL.SEG_REGULARIZER_ON", cfg.MODEL.SEG_REGULARIZER_ON),
        ("TEST.FLIP_AVERAGING", cfg.TEST.FLIP_AVERAGING),
    ):
        if on and _lacks(META_ARCH_REGISTRY, name, META_ARCH_REGISTRY.get("ION")):
            raise IONError(
                f"{key} is True, but MODEL.META_ARCHITECTURE is {name!r}, which would ignore it; "
                "set that to 'ION'."
            )
    if cfg.TEST.SEM_SEG and not cfg.MODEL.SEG_REGULARIZER_ON:
        raise IONError(
            "TEST.SEM_SEG is True, but the model has no segmentation head without "
            "MODEL.SEG_REGULARIZER_ON; set that to True, for a model trained with it."
        )
    # Heads of the other kinds, which refine otherwise or not at all, say so when they are built.
    others = heads in set(ROI_HEADS.values()) - {"IONROIHeads"}
    refines = cfg.TEST.BOX_REFINEMENT.ENABLED and not others
    if refines and _lacks(ROI_HEADS_REGISTRY, heads, ROI_HEADS_REGISTRY.get("IONROIHeads")):
        raise IONError(
            f"TEST.BOX_REFINEMENT.ENABLED is True, but MODEL.ROI_HEADS.NAME is {heads!r}, which "
            "would ignore it; set that to 'IONROIHeads'."
        )


def _check_features(cfg: CfgNode) -> None:
    with torch.random.fork_rng(devices=[]):  # the model draws its weights as if this were not done
        shapes = build_backbone(cfg).output_shape()
    if cfg.MODEL.PROPOSAL_GENERATOR.NAME == "RPN":
        check_rpn(cfg, shapes)
    check_features("MODEL.ROI_HEADS.IN_FEATURES", cfg.MODEL.ROI_HEADS.IN_FEATURES, shapes)


def _lacks(registry: Registry, name: str, base: type) -> bool:
    """Whether a name stands for a class of another family."""
    found = registry.get(name) if name in registry else None
    return isinstance(found, type) and not issubclass(found, base)
