"""Context from torch's own recurrent cells, which the paper names but leaves out (sec. 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import fvcore.nn.weight_init as weight_init
import torch
from detectron2.config import configurable
from torch import Tensor, nn

from ...layers import DIRECTIONS
from ...layers.dropout import Dropout
from ...layers.irnn import TRAVEL
from ...layers.irnn.arguments import keep_valid
from ...layers.precision import in_float32
from ...value_rules import check_value, one_of
from .build import CONTEXT_REGISTRY, ContextBlock, check_widths, directions_of_stacks

CELLS: dict[str, type[nn.RNNBase]] = {"tanh": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


class SpatialRNN(nn.Module):
    """A recurrent network over the rows and columns of a map, one for each direction of travel.

    It brings its own input-to-hidden weights, so that no 1x1 convolution precedes it.
    """

    def __init__(
        self, in_channels: int, channels: int, cell: str, directions: Sequence[str] = DIRECTIONS
    ) -> None:
        """
        Args:
            in_channels: channels of the input.
            channels: channels of each of the D directional states.
            cell: a key of ``CELLS``; IONError for another.
            directions: of travel, in the order of the output.
        """
        super().__init__()
        check_value("MODEL.CONTEXT.CELL", cell, one_of(*CELLS))
        self.directions = tuple(directions)
        self.cells = nn.ModuleList(
            CELLS[cell](in_channels, channels, batch_first=True) for _ in self.directions
        )
        self.out_channels = len(self.directions) * channels

    def forward(self, x: Tensor, sizes: Tensor | None = None) -> Tensor:
        """Sweep (N, in_channels, H, W) to (N, D * channels, H, W), direction-major, of x's type.

        ``sizes`` are those of :func:`ion_d2.layers.spatial_irnn`.
        """
        if x.numel() == 0:  # torch's cells take no sequence without steps
            return x.new_zeros(x.shape[0], self.out_channels, *x.shape[2:])
        # As for the IRNN, in float32 at least: long sequences lose too much in half precision.
        with torch.autocast(x.device.type, enabled=False):
            swept = [
                _sweep(cell, direction, x.to(cell.weight_hh_l0.dtype), sizes)
                for cell, direction in zip(self.cells, self.directions)
            ]
        return keep_valid(torch.cat(swept, dim=1).to(x.dtype), sizes)


def _sweep(cell: nn.RNNBase, direction: str, x: Tensor, sizes: Tensor | None) -> Tensor:
    """Run one cell along all rows or columns, from their first valid cell: [N, channels, H, W]."""
    axis, backwards = TRAVEL[direction]
    horizontal = axis == 3
    # Lines, then steps, then channels; each permutation is undone below.
    maps = x.permute(0, 2, 3, 1) if horizontal else x.permute(0, 3, 2, 1)  # [N, lines, T, C]
    lines = maps.flatten(0, 1)
    lengths = None
    if sizes is not None:
        lengths = sizes[:, axis - 2].to(x.device).repeat_interleave(maps.shape[1])
    states = cell(_reverse(lines, lengths) if backwards else lines)[0]
    states = (_reverse(states, lengths) if backwards else states).unflatten(0, maps.shape[:2])
    return states.permute(0, 3, 1, 2) if horizontal else states.permute(0, 3, 2, 1)


def _reverse(lines: Tensor, lengths: Tensor | None) -> Tensor:
    """Reverse [B, T, C] along T, each line within its own length; what lies beyond stays."""
    if lengths is None:
        return lines.flip(1)
    steps = torch.arange(lines.shape[1], device=lines.device)
    mirrored = lengths[:, None] - 1 - steps  # [B, T]
    index = torch.where(mirrored >= 0, mirrored, steps)
    return lines.gather(1, index[:, :, None].expand_as(lines))


@CONTEXT_REGISTRY.register()
class RNN(ContextBlock):
    """Stacked directional RNNs, GRUs or LSTMs, then a 1x1 convolution with ReLU.

    The structure of :class:`IRNN` with other cells: the hidden-to-output layer of one stack and the
    input-to-hidden layers of the next are one, the cells' own.
    """

    @configurable
    def __init__(
        self,
        in_channels: int,
        *,
        cell: str,
        hidden_dim: int = 512,
        out_dim: int = 512,
        num_stacks: int = 2,
        dropout: float = 0.25,
        directions: Sequence[Sequence[str]] = (DIRECTIONS,),
    ) -> None:
        """The settings are keys of ``MODEL.CONTEXT``; one that is out of range raises IONError."""
        super().__init__()
        check_widths(hidden_dim, out_dim, dropout)
        self.rnns = nn.ModuleList()
        channels = in_channels
        for names in directions_of_stacks(directions, num_stacks):
            self.rnns.append(SpatialRNN(channels, hidden_dim, cell, names))
            channels = self.rnns[-1].out_channels
        self.dropout = Dropout(dropout)
        self.output = nn.Conv2d(channels, out_dim, kernel_size=1)
        weight_init.c2_xavier_fill(self.output)
        self.out_channels = out_dim

    @in_float32
    def forward(self, x: Tensor, sizes: Tensor | None = None) -> Tensor:
        """The context feature; see ``CONTEXT_REGISTRY``."""
        for rnn in self.rnns:
            x = self.dropout(rnn(x, sizes))
        return keep_valid(torch.relu(self.output(x)), sizes)
