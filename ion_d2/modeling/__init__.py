"""The detector's parts, registered with Detectron2 on import."""

from .backbone import (
    VGG,
    BatchRenorm2d,
    TimmBackbone,
    build_ion_vgg_backbone,
    build_timm_backbone,
    build_timm_fpn_backbone,
)
from .competition_rpn import IONAnchorGenerator, IONRPNHead
from .context import (
    CONTEXT_REGISTRY,
    IRNN,
    ContextBackbone,
    SpatialIRNN,
    build_context_block,
    build_ion_context_backbone,
)
from .meta_arch import ION
from .roi_heads import (
    IONBoxHead,
    IONCascadeROIHeads,
    IONRes5ROIHeads,
    IONROIHeads,
    PyramidPooler,
    SkipPooler,
    SkipPooling,
    SPPROIHeads,
)
from .seg_head import IONSegHead

__all__ = [
    "CONTEXT_REGISTRY",
    "ION",
    "IRNN",
    "VGG",
    "BatchRenorm2d",
    "ContextBackbone",
    "IONAnchorGenerator",
    "IONBoxHead",
    "IONCascadeROIHeads",
    "IONROIHeads",
    "IONRPNHead",
    "IONRes5ROIHeads",
    "IONSegHead",
    "PyramidPooler",
    "SPPROIHeads",
    "SkipPooler",
    "SkipPooling",
    "SpatialIRNN",
    "TimmBackbone",
    "build_context_block",
    "build_ion_context_backbone",
    "build_ion_vgg_backbone",
    "build_timm_backbone",
    "build_timm_fpn_backbone",
]
