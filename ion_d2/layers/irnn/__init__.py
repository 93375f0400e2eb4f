"""The spatial IRNN operator (paper sec. 3.2, Eq. 1 and 2)."""

from .arguments import DIRECTIONS
from .reference import spatial_irnn_reference
from .sweep import spatial_irnn

__all__ = ["DIRECTIONS", "spatial_irnn", "spatial_irnn_reference"]
