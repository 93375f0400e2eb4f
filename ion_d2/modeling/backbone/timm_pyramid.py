"""A feature pyramid over any of timm's networks, as Detectron2 has it over its ResNets."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool

from ...errors import IONError
from ..model_values import check_features
from .timm_backbone import build_timm_backbone


@BACKBONE_REGISTRY.register()
def build_timm_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Build Detectron2's FPN (Lin et al., CVPR 2017) that ``MODEL.FPN`` describes.

    Its levels are "p2" for a stage of stride 4 and so on, and one more that is half as fine as the
    last. The network below is that of :func:`build_timm_backbone`.

    Raises:
        IONError: the pyramid would read stages that the network does not give or that it cannot
            read together, or as :func:`build_timm_backbone`.
    """
    settings, wanted = cfg.MODEL.FPN, list(cfg.MODEL.FPN.IN_FEATURES)
    bottom_up = build_timm_backbone(cfg, input_shape)
    shapes = bottom_up.output_shape()
    check_features("MODEL.FPN.IN_FEATURES", wanted, shapes)
    strides = [shapes[name].stride for name in wanted]
    if any(coarse != 2 * fine for fine, coarse in zip(strides, strides[1:])):
        raise IONError(
            f"MODEL.FPN.IN_FEATURES {', '.join(wanted)} have the strides {strides}, but each must "
            "have twice that of the one before; name others, or set MODEL.TIMM.OUTPUT_STRIDE to 0."
        )
    pyramid = FPN(
        bottom_up=bottom_up,
        in_features=wanted,
        out_channels=settings.OUT_CHANNELS,
        norm=settings.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=settings.FUSE_TYPE,
    )
    # The network may need more than the pyramid: for its own stages, or to read cells in twos.
    pyramid._size_divisibility = bottom_up.size_divisibility
    return pyramid
