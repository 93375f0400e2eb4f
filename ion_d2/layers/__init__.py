"""Stateless maths: the spatial IRNN operator and the normalization of pooled features."""

from .irnn import DIRECTIONS, spatial_irnn, spatial_irnn_portable, spatial_irnn_reference
from .l2_norm import l2_normalize

__all__ = [
    "DIRECTIONS",
    "l2_normalize",
    "spatial_irnn",
    "spatial_irnn_portable",
    "spatial_irnn_reference",
]
