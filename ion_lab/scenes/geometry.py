"""How far a VGG looks, and how far an object must be from its cue to be out of conv5's sight.

All spans are half-open and count whole pixels or feature rows from 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

_CONVS_PER_BLOCK = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}


class Layer(NamedTuple):
    """Window of one convolution or pooling layer, in cells of its input."""

    kernel: int
    stride: int
    padding: int


class ReceptiveField(NamedTuple):
    """What one output cell sees of the input image along one axis, in pixels."""

    size: int
    stride: int  # between the fields of neighboring cells
    start: int  # first pixel of cell 0's field; negative: it reaches into the zero padding

    def span(self, cell: int) -> tuple[int, int]:
        """Pixels seen by ``cell``, as (first, one past the last); may leave the image."""
        first = self.start + cell * self.stride
        return first, first + self.size


def receptive_field(layers: Iterable[Layer]) -> ReceptiveField:
    """Theoretical receptive field of the last of a chain of undilated layers, from the image on."""
    size, stride, start = 1, 1, 0
    for layer in layers:
        start -= layer.padding * stride
        size += (layer.kernel - 1) * stride
        stride *= layer.stride
    return ReceptiveField(size, stride, start)


def vgg_conv5_layers(depth: int = 16, blocks: int = 5) -> list[Layer]:
    """Layers of VGG ``depth`` (11, 13, 16, 19) from the image to the end of a block."""
    layers: list[Layer] = []
    for count in _CONVS_PER_BLOCK[depth][:blocks]:
        if layers:
            layers.append(Layer(kernel=2, stride=2, padding=0))
        layers += [Layer(kernel=3, stride=1, padding=1)] * count
    return layers


def safe_distance(scale: float, *, depth: int = 16, margin: int = 16) -> int:
    """Rows between cue and box that hide the cue from everything pooled for the box from conv5.

    Sums what can bring the two together in the worst case: the field of conv5, RoIAlign's
    half-cell shift and its lower interpolation neighbor, and the smear of bilinear resizing.

    Args:
        scale: factor by which the picture is resized before the network.
        depth: of the VGG.
        margin: further pixels, for proposals that begin above the object.

    Returns:
        Smallest allowed difference between the box's upper edge and the cue's lower edge, in
        pixels of the picture as stored.
    """
    field = receptive_field(vgg_conv5_layers(depth))
    reach = 1.5 * field.stride - field.start + max(1.0, scale)
    return math.ceil(reach / scale) + margin
