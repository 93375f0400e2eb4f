"""Which cells and pixels can have a say in one cell of a feature: theoretical receptive fields."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage
from torch import nn

from ion_d2.layers.irnn import TRAVEL
from ion_d2.modeling.backbone import VGG
from ion_d2.modeling.context import IRNN, RNN, Branches, Chain, Conv, GlobalAverage

from ..scenes.geometry import ReceptiveField, receptive_field, vgg_conv5_layers


def vgg_field(backbone: nn.Module, feature: str) -> ReceptiveField | None:
    """Theoretical receptive field of "conv1" to "conv5" of a VGG, along either axis.

    None for other backbones, whose layers are not known here.
    """
    if not isinstance(backbone, VGG):
        return None
    return receptive_field(vgg_conv5_layers(backbone.depth, int(feature[len("conv") :])))


def context_reach(block: nn.Module, cells: np.ndarray) -> np.ndarray | None:
    """Which cells of its input a context block can read for cells of its output "context".

    Both are (H, W) bool arrays; None for kinds of blocks that are not ION's own.
    """
    if isinstance(block, Chain):
        reach: np.ndarray | None = cells
        for part in reversed(block.parts):
            reach = None if reach is None else context_reach(part, reach)
        return reach
    if isinstance(block, Branches):
        return context_reach(next(iter(block.parts.values())), cells)
    if isinstance(block, GlobalAverage):
        return np.full_like(cells, cells.any())
    if isinstance(block, Conv):
        for conv in block.convs:
            cells = ndimage.binary_dilation(cells, np.ones(conv.kernel_size))
        return cells
    if isinstance(block, (IRNN, RNN)):
        for stack in reversed(block.irnns if isinstance(block, IRNN) else block.rnns):
            cells = swept_cells(cells, stack.directions)
        return cells
    return None


def swept_cells(cells: np.ndarray, directions: Sequence[str]) -> np.ndarray:
    """Which cells (H, W) of its input a directional recurrence reads for cells of its output.

    They are the cells themselves, and those from which a sweep comes to them.
    """
    reached = np.zeros_like(cells)
    for direction in directions:
        axis = TRAVEL[direction].axis - 2
        # Looking back: against the direction of travel.
        ahead = TRAVEL[direction].backwards
        against = cells if ahead else np.flip(cells, axis)
        seen = np.logical_or.accumulate(against, axis=axis)
        reached |= seen if ahead else np.flip(seen, axis)
    return reached


def pixels_of(cells: np.ndarray, field: ReceptiveField, size: tuple[int, int]) -> np.ndarray:
    """The pixels of an image of ``size`` in the field of at least one of the cells (H, W)."""
    # Fields are square, so rows and columns can be widened one after the other.
    rows = np.stack([_covered(line, field, size[1]) for line in cells])
    return np.stack([_covered(line, field, size[0]) for line in rows.T], axis=1)


def _covered(cells: np.ndarray, field: ReceptiveField, length: int) -> np.ndarray:
    covered = np.zeros(length, dtype=bool)
    for cell in np.flatnonzero(cells):
        first, end = field.span(int(cell))
        covered[max(first, 0) : max(end, 0)] = True
    return covered
