"""The "inside": skip pooling, and the ROI heads that use it."""

from .box_head import IONBoxHead
from .ion_roi_heads import IONROIHeads
from .skip_pooler import SkipPooler
from .skip_pooling_heads import IONCascadeROIHeads, IONRes5ROIHeads, SkipPooling
from .sppnet import PyramidPooler, SPPROIHeads

__all__ = [
    "IONBoxHead",
    "IONCascadeROIHeads",
    "IONROIHeads",
    "IONRes5ROIHeads",
    "PyramidPooler",
    "SPPROIHeads",
    "SkipPooler",
    "SkipPooling",
]
