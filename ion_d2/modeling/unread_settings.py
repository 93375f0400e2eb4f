"""Settings of a model that its parts would silently ignore."""

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
from ..value_rules import value_of
from .model_values import check_features, check_rpn, check_values

# Detectron2's ROI heads and ION's with the same heads.
ROI_HEADS = {
    "StandardROIHeads": "IONROIHeads",
    "CascadeROIHeads": "IONCascadeROIHeads",
    "Res5ROIHeads": "IONRes5ROIHeads",
}
# Switches, the key and the registry of the part that must honor them, and one that does.
_META_ARCHITECTURES = ("GeneralizedRCNN", "ION", "PanopticFPN")
_SWITCHES = (
    ("MODEL.SEG_REGULARIZER_ON", "MODEL.META_ARCHITECTURE", META_ARCH_REGISTRY, "ION"),
    ("TEST.FLIP_AVERAGING", "MODEL.META_ARCHITECTURE", META_ARCH_REGISTRY, "ION"),
    ("TEST.BOX_REFINEMENT.ENABLED", "MODEL.ROI_HEADS.NAME", ROI_HEADS_REGISTRY, "IONROIHeads"),
)


def check_model(cfg: CfgNode) -> None:
    """Refuse a config whose model would ignore a part of it.

    Parts that are not registered are left to the one who builds them.

    Raises:
        IONError: the meta-architecture would not read ION's ROI heads, a value of an R-CNN model is
            out of its range, or as :func:`check_switches`.
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

    Raises:
        IONError: the segmentation loss, its predictions, the averaging with the mirrored image, the
            refinement of boxes or another start of the class scores is.
    """
    if cfg.TEST.SEM_SEG and not cfg.MODEL.SEG_REGULARIZER_ON:
        raise IONError(
            "TEST.SEM_SEG is True, but the model has no segmentation head without "
            "MODEL.SEG_REGULARIZER_ON; set that to True, for a model trained with it."
        )
    _check_start_of_scores(cfg)
    for switch, key, registry, able in _SWITCHES:
        name = value_of(cfg, key)
        # ION's further heads, which refine otherwise or not at all, say so when they are built.
        settled = not value_of(cfg, switch) or name in ROI_HEADS.values()
        if not settled and _lacks(registry, name, registry.get(able)):
            raise IONError(
                f"{switch} is True, but {key} is {name!r}, which would ignore it; set that to "
                f"{able!r}."
            )


def _check_start_of_scores(cfg: CfgNode) -> None:
    name, key = cfg.MODEL.ROI_HEADS.NAME, "MODEL.ROI_BOX_HEAD.CLS_INIT_STD"
    # Heads of other projects may read it.
    without = {*ROI_HEADS, *ROI_HEADS.values()} - {"IONROIHeads"}
    if value_of(cfg, key) != 0.01 and name in without:
        raise IONError(
            f"{key} is {value_of(cfg, key)}, but MODEL.ROI_HEADS.NAME is {name!r}, which would "
            "ignore it; set it to 0.01, or the heads to 'IONROIHeads'."
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


def check_context_is_read(cfg: CfgNode) -> None:
    """Refuse a context block that costs its time and trains nothing.

    Its parameters would have no gradient, on which distributed training fails. Models and proposal
    generators of other projects may read it by keys of their own.

    Raises:
        IONError: neither the ROI heads, nor the RPN, nor a segmentation head reads it.
    """
    model = cfg.MODEL
    readers = {"MODEL.ROI_HEADS.IN_FEATURES": model.ROI_HEADS.IN_FEATURES}
    if model.PROPOSAL_GENERATOR.NAME == "RPN":
        readers["MODEL.RPN.IN_FEATURES"] = model.RPN.IN_FEATURES
    if model.SEG_REGULARIZER_ON or model.META_ARCHITECTURE == "PanopticFPN":
        readers["MODEL.SEM_SEG_HEAD.IN_FEATURES"] = model.SEM_SEG_HEAD.IN_FEATURES
    known = model.META_ARCHITECTURE in _META_ARCHITECTURES and (
        model.PROPOSAL_GENERATOR.NAME in ("RPN", "PrecomputedProposals")
    )
    reads = any(name.startswith("context") for names in readers.values() for name in names)
    if known and model.BACKBONE.NAME == "build_ion_context_backbone" and not reads:
        raise IONError(
            "MODEL.BACKBONE.NAME is 'build_ion_context_backbone', but nothing reads its context: "
            f"name 'context' in {' or '.join(readers)}, or set MODEL.BACKBONE.NAME to "
            f"{model.CONTEXT.BOTTOM_UP!r}."
        )


def _is_upright_rcnn(cfg: CfgNode) -> bool:
    rotated = cfg.MODEL.PROPOSAL_GENERATOR.NAME == "RRPN"
    name = cfg.MODEL.META_ARCHITECTURE
    return not rotated and not _lacks(META_ARCH_REGISTRY, name, GeneralizedRCNN)


def _lacks(registry: Registry, name: str, base: type) -> bool:
    """Whether a name stands for a class of another family."""
    found = registry.get(name) if name in registry else None
    return isinstance(found, type) and not issubclass(found, base)
