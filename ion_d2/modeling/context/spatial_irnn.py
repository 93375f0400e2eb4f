"""One stack of the paper's context block: a recurrence in several directions (sec. 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import torch
from torch import Tensor, nn

from ...layers import DIRECTIONS, spatial_irnn, spatial_irnn_portable
from ...layers.irnn import TRAVEL
from ...layers.irnn.arguments import keep_valid, valid_mask
from ...value_rules import check_value, one_of


class SpatialIRNN(nn.Module):
    """Recurrence over a map in several directions, with its own hidden-to-hidden weights.

    The hidden-to-hidden weights start as the identity (sec. 3.2).
    """

    def __init__(
        self,
        channels: int,
        transition: str = "full",
        *,
        directions: Sequence[str] = DIRECTIONS,
        shared_input: bool = True,
        first_step_bias: bool = False,
    ) -> None:
        """
        Args:
            channels: channels of each directional state.
            transition: "full" (a matrix per direction, Eq. 1), "diagonal" (a factor per channel and
                direction), "identity" (no parameters, Eq. 2), or "max" (:func:`running_max`);
                IONError for another.
            directions: D directions of travel, in the order of the output.
            shared_input: whether all directions read the same input. Otherwise the input holds one
                block of ``channels`` for each direction.
            first_step_bias: whether each direction has a learned bias at its first step alone, b0
                of sec. 3.2, which starts at 0.
        """
        super().__init__()
        known = one_of("full", "diagonal", "identity", "max")
        check_value("MODEL.CONTEXT.TRANSITION", transition, known)
        self.transition = transition
        self.directions = tuple(directions)
        self._indices = [DIRECTIONS.index(name) for name in directions]
        count = len(self.directions)
        weight: nn.Parameter | None = None
        if transition == "full":
            weight = nn.Parameter(torch.eye(channels).repeat(count, 1, 1))
        elif transition == "diagonal":
            weight = nn.Parameter(torch.ones(count, channels))
        self.register_parameter("weight", weight)
        bias = nn.Parameter(torch.zeros(count, channels)) if first_step_bias else None
        self.register_parameter("first_step_bias", bias)
        # Blocks of ``channels`` that the input holds.
        self.num_inputs = 1 if shared_input else count
        self.out_channels = count * channels

    # TorchScript reads this signature; ``X | None`` it cannot on every Python.
    def forward(self, x: Tensor, sizes: Optional[Tensor] = None) -> Tensor:  # noqa: UP045
        """Sweep (N, channels, H, W) to (N, D * channels, H, W), direction-major.

        Without ``shared_input``, ``x`` has D times as many channels. ``sizes`` are those of
        :func:`ion_d2.layers.spatial_irnn`.
        """
        if torch.jit.is_scripting():
            # What is compiled must not need ion_d2. Inputs or biases of their own can be traced.
            plain = self.num_inputs == 1 and self.first_step_bias is None
            assert plain and self.transition != "max", "trace this SpatialIRNN, do not script it"
            return spatial_irnn_portable(x, self.weight, self._indices, sizes)
        else:
            return self._run(x, sizes)

    @torch.jit.unused
    def _run(self, x: Tensor, sizes: Optional[Tensor]) -> Tensor:  # noqa: UP045
        if self.num_inputs == 1 and self.first_step_bias is None:
            return self._recur(x, self.weight, self.directions, sizes)
        inputs = x.chunk(self.num_inputs, dim=1) * (len(self.directions) // self.num_inputs)
        return torch.cat([self._sweep(d, part, sizes) for d, part in enumerate(inputs)], dim=1)

    def _sweep(self, index: int, x: Tensor, sizes: Tensor | None) -> Tensor:
        """Run one direction on an input of its own."""
        direction = self.directions[index]
        if self.first_step_bias is not None:
            bias = self.first_step_bias[index][:, None, None]
            x = x + _first_cells(direction, x, sizes) * bias.to(x.dtype)
        weight = None if self.weight is None else self.weight[index : index + 1]
        return self._recur(x, weight, (direction,), sizes)

    def _recur(
        self, x: Tensor, weight: Tensor | None, directions: Sequence[str], sizes: Tensor | None
    ) -> Tensor:
        if self.transition == "max":
            return running_max(x, directions, sizes)
        return spatial_irnn(x, weight, directions=directions, sizes=sizes)


def _first_cells(direction: str, x: Tensor, sizes: Tensor | None) -> Tensor:
    """Mark the cells where a direction of travel starts; broadcasts to [N, 1, H, W]."""
    axis, backwards = TRAVEL[direction]
    length = x.shape[axis]
    position = torch.arange(length, device=x.device)
    start = torch.zeros(1, 1, dtype=torch.long, device=x.device)
    if backwards:
        ends = start + length if sizes is None else sizes[:, axis - 2, None].to(x.device)
        start = ends - 1
    first = position == start  # [N or 1, length]
    return first[:, None, None, :] if axis == 3 else first[:, None, :, None]


def running_max(x: Tensor, directions: Sequence[str], sizes: Tensor | None = None) -> Tensor:
    """Sweep a maximum, in place of the paper's rectified sum, over a map in several directions.

    Along each direction of travel, ``h_t = max(h_{t-1}, x_t)``, from ``h_1 = x_1``. A sum over a
    sweep drowns what a single cell says among the noise of all others; a maximum keeps it.

    Arguments and result are those of :func:`ion_d2.layers.spatial_irnn` without a weight.
    """
    if sizes is not None:
        x = x.masked_fill(~valid_mask(sizes, x.shape[2], x.shape[3], x.device), float("-inf"))
    return keep_valid(torch.cat([_sweep_max(x, name) for name in directions], dim=1), sizes)


def _sweep_max(x: Tensor, direction: str) -> Tensor:
    axis, backwards = TRAVEL[direction]
    if backwards:
        return x.flip(axis).cummax(axis).values.flip(axis)
    return x.cummax(axis).values
