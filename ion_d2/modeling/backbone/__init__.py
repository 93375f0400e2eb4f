"""Backbones: VGG, context blocks, and the backbone that joins the two."""

from .batch_renorm import BatchRenorm2d
from .compound import Branches, Chain
from .context import CONTEXT, CONTEXT_REGISTRY, build_context_block
from .context_backbone import ContextBackbone, build_ion_context_backbone
from .irnn import IRNN
from .local_global import Conv, GlobalAverage
from .rnn import RNN, SpatialRNN
from .spatial_irnn import SpatialIRNN
from .timm_backbone import TimmBackbone, build_timm_backbone
from .vgg import VGG, build_ion_vgg_backbone

__all__ = [
    "CONTEXT",
    "CONTEXT_REGISTRY",
    "IRNN",
    "RNN",
    "VGG",
    "TimmBackbone",
    "BatchRenorm2d",
    "Branches",
    "Chain",
    "ContextBackbone",
    "Conv",
    "GlobalAverage",
    "SpatialIRNN",
    "SpatialRNN",
    "build_context_block",
    "build_ion_context_backbone",
    "build_ion_vgg_backbone",
    "build_timm_backbone",
]
