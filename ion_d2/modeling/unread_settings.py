"""Settings of a model that its parts would ignore without a word."""

from __future__ import annotations

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
    if _is_upright_rcnn(cfg):
        check_values(cfg)
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


def check_read_features(cfg: CfgNode, backbone: Backbone | None = None) -> None:
    """Refuse features and anchors with which a model of the R-CNN family cannot do.

    Args:
        cfg: the full config.
        backbone: the model's; None, where the model could not be built, makes one.

    Raises:
        IONError: one of them, or as the backbone; the message names the key.
    """
    if not _is_upright_rcnn(cfg) or cfg.MODEL.BACKBONE.NAME not in BACKBONE_REGISTRY:
        return
    shapes = (build_backbone(cfg) if backbone is None else backbone).output_shape()
    if cfg.MODEL.PROPOSAL_GENERATOR.NAME == "RPN":
        check_rpn(cfg, shapes)
    check_features("MODEL.ROI_HEADS.IN_FEATURES", cfg.MODEL.ROI_HEADS.IN_FEATURES, shapes)


def _is_upright_rcnn(cfg: CfgNode) -> bool:
    rotated = cfg.MODEL.PROPOSAL_GENERATOR.NAME == "RRPN"
    return not rotated and not _lacks(
        META_ARCH_REGISTRY, cfg.MODEL.META_ARCHITECTURE, GeneralizedRCNN
    )


def _lacks(registry: Registry, name: str, base: type) -> bool:
    """Whether a name stands for a class of another family."""
    found = registry.get(name) if name in registry else None
    return isinstance(found, type) and not issubclass(found, base)
