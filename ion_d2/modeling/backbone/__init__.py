"""Backbones: VGG, context blocks, and the backbone that joins the two."""

from .context import CONTEXT_REGISTRY, build_context_block
from .context_backbone import CONTEXT, ContextBackbone, build_ion_context_backbone
from .irnn import IRNN, SpatialIRNN
from .vgg import VGG, build_ion_vgg_backbone

__all__ = [
    "CONTEXT",
    "CONTEXT_REGISTRY",
    "IRNN",
    "VGG",
    "ContextBackbone",
    "SpatialIRNN",
    "build_context_block",
    "build_ion_context_backbone",
    "build_ion_vgg_backbone",
]
