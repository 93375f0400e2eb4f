"""The detector's parts, registered with Detectron2 on import."""

from .backbone import CONTEXT_REGISTRY, IRNN, VGG, ContextBackbone
from .box_head import IONBoxHead
from .competition_rpn import IONAnchorGenerator, IONRPNHead
from .meta_arch import ION
from .poolers import SkipPooler
from .roi_heads import IONROIHeads
from .seg_head import IONSegHead
from .skip_heads import IONCascadeROIHeads, IONRes5ROIHeads, SkipPooling
from .sppnet import PyramidPooler, SPPROIHeads

__all__ = [
    "CONTEXT_REGISTRY",
    "ION",
    "IONAnchorGenerator",
    "IRNN",
    "VGG",
    "ContextBackbone",
    "IONBoxHead",
    "IONCascadeROIHeads",
    "IONROIHeads",
    "IONRPNHead",
    "IONRes5ROIHeads",
    "IONSegHead",
    "PyramidPooler",
    "SPPROIHeads",
    "SkipPooling",
    "SkipPooler",
]
