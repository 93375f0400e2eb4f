"""The spatial IRNN operator (paper sec. 3.2, Eq. 1 and 2)."""

from .arguments import DIRECTIONS, TRAVEL
from .backends import BACKENDS, ENVIRONMENT_VARIABLE, unavailable_backends
from .op import spatial_irnn
from .portable import spatial_irnn_portable
from .reference import spatial_irnn_reference

__all__ = [
    "BACKENDS",
    "DIRECTIONS",
    "ENVIRONMENT_VARIABLE",
    "TRAVEL",
    "spatial_irnn",
    "spatial_irnn_portable",
    "spatial_irnn_reference",
    "unavailable_backends",
]
