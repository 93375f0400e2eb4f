"""The detector's parts, registered with Detectron2 on import."""

from .backbone import CONTEXT_REGISTRY, IRNN, VGG, ContextBackbone
from .box_head import IONBoxHead
from .meta_arch import ION
from .poolers import SkipPooler
from .roi_heads import IONCascadeROIHeads, IONRes5ROIHeads, IONROIHeads
from .seg_head import IONSegHead

__all__ = [
    "CONTEXT_REGISTRY",
    "ION",
    "IRNN",
    "VGG",
    "ContextBackbone",
    "IONBoxHead",
    "IONCascadeROIHeads",
    "IONROIHeads",
    "IONRes5ROIHeads",
    "IONSegHead",
    "SkipPooler",
]
