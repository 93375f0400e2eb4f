"""The paper's context block: stacked four-directional IRNNs (sec. 3.2, Fig. 2)."""

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
from .build import CONTEXT, CONTEXT_REGISTRY, ContextBlock, check_widths, directions_of_stacks
from .conv import NormedConv
from .spatial_irnn import SpatialIRNN


def _pass_through(conv: nn.Conv2d, read: Sequence[bool], outputs: int) -> None:
    """Start each of ``outputs`` blocks of channels as the mean of the input blocks to be ``read``.

    Channels beyond those of an output are dropped, channels beyond those of an input start at 0.
    """
    identity = torch.eye(conv.out_channels // outputs, conv.in_channels // len(read))
    blocks = torch.cat([identity * float(taken) / sum(read) for taken in read], dim=1)
    with torch.no_grad():
        conv.weight.copy_(blocks.repeat(outputs, 1)[:, :, None, None])


def _read_first(init: str, stack: int, directions: Sequence[str]) -> list[bool]:
    """Which directions of a stack the convolution behind it starts with."""
    horizontal = [TRAVEL[name].axis == 3 for name in directions]
    if init == "pass_through" or len(set(horizontal)) == 1:
        return [True] * len(directions)
    return horizontal if stack % 2 == 0 else [not across for across in horizontal]


@CONTEXT_REGISTRY.register()
class IRNN(ContextBlock):
    """Stacked IRNNs: 1x1 conv, recurrence, concat, 1x1 conv, recurrence, concat, 1x1 conv + ReLU.

    One 1x1 convolution feeds all four directions of a stack (sec. 3.2). The hidden-to-output layer
    of one stack and the input-to-hidden layer of the next are the same convolution, without a ReLU
    (Fig. 2).

    The paper does not say how these convolutions start. "xavier" treats them as its other 1x1;
    "pass_through" starts the block as the recurrences alone: the first convolution hands the
    feature on, each later one the mean of the four directions. "rows_then_columns" is the same with
    the mean of the horizontal directions behind the first stack and of the vertical ones behind the
    second (and so on), so that each cell starts with sums over whole rectangles of the map.
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
        norm: str = "",
        directions: Sequence[Sequence[str]] = (DIRECTIONS,),
        shared_input: bool = True,
        first_step_bias: bool = False,
        all_stacks: bool = False,
    ) -> None:
        """The settings are keys of ``MODEL.CONTEXT``; one that is out of range raises IONError."""
        super().__init__()
        check_widths(hidden_dim, out_dim, dropout)
        self.convs = nn.ModuleList()
        self.irnns = nn.ModuleList()
        channels = in_channels
        settings = {"shared_input": shared_input, "first_step_bias": first_step_bias}
        for names in directions_of_stacks(directions, num_stacks):
            irnn = SpatialIRNN(hidden_dim, transition, directions=names, **settings)
            self.irnns.append(irnn)
            self.convs.append(NormedConv(channels, irnn.num_inputs * hidden_dim, norm=norm))
            channels = irnn.out_channels
        self.dropout = Dropout(dropout)
        self.output = NormedConv(channels, out_dim, norm=norm)
        self.out_channels = out_dim
        self.extra_channels: dict[str, int] = {}
        if all_stacks:
            convs = enumerate(self.convs)
            self.extra_channels = {f"{CONTEXT}{i}": conv.out_channels for i, conv in convs if i}
        self._init_weights(init, bias_init)

    def _init_weights(self, init: str, bias_init: float) -> None:
        known = one_of("xavier", "pass_through", "rows_then_columns")
        check_value("MODEL.CONTEXT.INIT", init, known)
        stacks = enumerate(self.irnns)
        read = [[True], *(_read_first(init, stack, irnn.directions) for stack, irnn in stacks)]
        outputs = [*(irnn.num_inputs for irnn in self.irnns), 1]
        for conv, taken, num_out in zip([*self.convs, self.output], read, outputs):
            weight_init.c2_xavier_fill(conv)
            if init != "xavier":
                _pass_through(conv, taken, num_out)
        for conv in self.convs:
            nn.init.constant_(conv.shift, bias_init)

    @in_float32
    def forward(self, x: Tensor, sizes: Tensor | None = None) -> Tensor | dict[str, Tensor]:
        """The context feature; with ``all_stacks`` in a dict. See ``CONTEXT_REGISTRY``."""
        features = {}
        for index, (conv, irnn) in enumerate(zip(self.convs, self.irnns)):
            x = conv(x, sizes)
            if f"{CONTEXT}{index}" in self.extra_channels:
                features[f"{CONTEXT}{index}"] = keep_valid(torch.relu(x), sizes)
            x = self.dropout(irnn(x, sizes))
        x = keep_valid(torch.relu(self.output(x, sizes)), sizes)
        return {CONTEXT: x, **features} if features else x
