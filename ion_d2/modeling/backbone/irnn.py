"""The paper's context block: stacked four-directional IRNNs (sec. 3.2, Fig. 2)."""

from __future__ import annotations

from typing import Any

import fvcore.nn.weight_init as weight_init
import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor, nn

from ...errors import IONError
from ...layers import DIRECTIONS, spatial_irnn, spatial_irnn_portable
from ...layers.irnn.arguments import valid_mask
from .context import CONTEXT_REGISTRY

TRANSITIONS = ("full", "diagonal", "identity")
INITS = ("xavier", "pass_through")


class SpatialIRNN(nn.Module):
    """Four-directional recurrence over a map, with its own hidden-to-hidden weights.

    The hidden-to-hidden weights start as the identity (sec. 3.2); there is no bias in the
    recurrence.
    """

    def __init__(self, channels: int, transition: str = "full") -> None:
        """
        Args:
            channels: channels of the input and of each directional state.
            transition: "full" (a matrix per direction, Eq. 1), "diagonal" (a factor per channel and
                direction) or "identity" (no parameters, Eq. 2).

        Raises:
            IONError: unknown transition.
        """
        super().__init__()
        if transition not in TRANSITIONS:
            raise IONError(f"MODEL.CONTEXT.TRANSITION is {transition!r}; use one of {TRANSITIONS}.")
        num_directions = len(DIRECTIONS)
        weight: nn.Parameter | None = None
        if transition == "full":
            weight = nn.Parameter(torch.eye(channels).repeat(num_directions, 1, 1))
        elif transition == "diagonal":
            weight = nn.Parameter(torch.ones(num_directions, channels))
        self.register_parameter("weight", weight)
        self.out_channels = num_directions * channels

    def forward(self, x: Tensor, sizes: Tensor | None = None) -> Tensor:
        """
        Args:
            x: (N, C, H, W).
            sizes: (N, 2), valid (height, width) of each image in cells, or None for all of the map.

        Returns:
            (N, 4 * C, H, W): the states moving right, left, down and up.
        """
        if torch.jit.is_scripting():
            return spatial_irnn_portable(x, self.weight, [0, 1, 2, 3], sizes)
        else:
            return spatial_irnn(x, self.weight, sizes=sizes)


def _pass_through(conv: nn.Conv2d, directions: int) -> None:
    """Start a 1x1 convolution as the mean of the directions that its input concatenates.

    Channels beyond those of the output are dropped, channels beyond those of the input start at 0.
    """
    identity = torch.eye(conv.out_channels, conv.in_channels // directions)
    with torch.no_grad():
        conv.weight.copy_(identity.repeat(1, directions)[:, :, None, None] / directions)


@CONTEXT_REGISTRY.register()
class IRNN(nn.Module):
    """Stacked IRNNs: 1x1 conv, recurrence, concat, 1x1 conv, recurrence, concat, 1x1 conv + ReLU.

    One 1x1 convolution feeds all four directions of a stack (sec. 3.2). The hidden-to-output layer
    of one stack and the input-to-hidden layer of the next are the same convolution, without a ReLU
    (Fig. 2). The paper does not say how these convolutions start. "xavier" treats them as its other
    1x1; "pass_through" starts the block as the recurrences alone: the first convolution hands the
    feature on, each later one the mean of the four directions.
    """

    @configurable
    def __init__(
        self,
        in_channels: int,
        *,
        hidden_dim: int = 512,
        out_dim: int = 512,
        num_stacks: int = 2,
        transition: str = "full",
        dropout: float = 0.25,
        init: str = "xavier",
        bias_init: float = 0.0,
    ) -> None:
        """
        Args:
            in_channels: channels of the feature that feeds the block.
            hidden_dim: channels of each directional state.
            out_dim: channels of the context feature.
            num_stacks: number of stacked IRNNs, at least 1.
            transition: see :class:`SpatialIRNN`.
            dropout: probability with which an entry is dropped after each concatenation.
            init: start of the 1x1 convolutions, "xavier" or "pass_through".
            bias_init: start of the biases of the convolutions that feed a recurrence.

        Raises:
            IONError: ``num_stacks``, ``transition`` or ``init`` is out of range.
        """
        super().__init__()
        if num_stacks < 1:
            raise IONError(f"MODEL.CONTEXT.NUM_STACKS is {num_stacks}; it must be at least 1.")
        self.convs = nn.ModuleList()
        self.irnns = nn.ModuleList()
        channels = in_channels
        for _ in range(num_stacks):
            self.convs.append(nn.Conv2d(channels, hidden_dim, kernel_size=1))
            self.irnns.append(SpatialIRNN(hidden_dim, transition))
            channels = self.irnns[-1].out_channels
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Conv2d(channels, out_dim, kernel_size=1)
        self.out_channels = out_dim
        self._init_weights(init, bias_init)

    def _init_weights(self, init: str, bias_init: float) -> None:
        if init not in INITS:
            raise IONError(f"MODEL.CONTEXT.INIT is {init!r}; use one of {INITS}.")
        for conv in [*self.convs, self.output]:
            weight_init.c2_xavier_fill(conv)
            if init == "pass_through":
                _pass_through(conv, 1 if conv is self.convs[0] else len(DIRECTIONS))
        for conv in self.convs:
            nn.init.constant_(conv.bias, bias_init)

    @classmethod
    def from_config(cls, cfg: CfgNode, in_channels: int) -> dict[str, Any]:
        """Read ``MODEL.CONTEXT.*``."""
        context = cfg.MODEL.CONTEXT
        return {
            "in_channels": in_channels,
            "hidden_dim": context.HIDDEN_DIM,
            "out_dim": context.OUT_DIM,
            "num_stacks": context.NUM_STACKS,
            "transition": context.TRANSITION,
            "dropout": context.DROPOUT,
            "init": context.INIT,
            "bias_init": context.BIAS_INIT,
        }

    def forward(self, x: Tensor, sizes: Tensor | None = None) -> Tensor:
        """
        Args:
            x: (N, C, H, W) feature map.
            sizes: (N, 2) integers, valid (height, width) of each image in cells. The context inside
                the valid area is then that of the image alone, and 0 outside. None: the whole map
                is valid.

        Returns:
            (N, out_channels, H, W) context feature.
        """
        for conv, irnn in zip(self.convs, self.irnns):
            x = self.dropout(irnn(conv(x), sizes))
        x = torch.relu(self.output(x))
        if sizes is not None:
            x = x.masked_fill(~valid_mask(sizes, x.shape[2], x.shape[3], x.device), 0.0)
        return x
