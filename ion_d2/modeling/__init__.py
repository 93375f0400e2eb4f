"""The detector's parts, registered with Detectron2 on import."""

from .backbone import CONTEXT_REGISTRY, VGG, ContextBackbone
from .box_head import IONBoxHead
from .meta_arch import ION
from .poolers import SkipPooler
from .roi_heads import IONROIHeads
from .seg_head import IONSegHead
from .sppnet import PyramidPooler, SPPROIHeads

__all__ = [
    "CONTEXT_REGISTRY",
    "ION",
    "VGG",
    "ContextBackbone",
    "IONBoxHead",
    "IONROIHeads",
    "IONSegHead",
    "PyramidPooler",
    "SPPROIHeads",
    "SkipPooler",
]
