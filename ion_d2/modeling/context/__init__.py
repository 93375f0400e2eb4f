"""The "outside": context blocks, their registry, and the backbone that adds one to another."""

from .build import CONTEXT, CONTEXT_REGISTRY, ContextBlock, build_context_block
from .combined import Branches, Chain
from .context_backbone import ContextBackbone, build_ion_context_backbone
from .conv import Conv
from .global_average import GlobalAverage
from .irnn_block import IRNN
from .rnn import RNN, SpatialRNN
from .spatial_irnn import SpatialIRNN

__all__ = [
    "CONTEXT",
    "CONTEXT_REGISTRY",
    "IRNN",
    "RNN",
    "Branches",
    "Chain",
    "ContextBackbone",
    "ContextBlock",
    "Conv",
    "GlobalAverage",
    "SpatialIRNN",
    "SpatialRNN",
    "build_context_block",
    "build_ion_context_backbone",
]
