"""Convolutions of context blocks, and the block that is made of them alone."""

from __future__ import annotations

import fvcore.nn.weight_init as weight_init
import torch
from detectron2.config import configurable
from torch import Tensor, nn

from ...layers.irnn.arguments import keep_valid
from ...layers.precision import in_float32
from ...value_rules import COUNT, check_value, number
from ..backbone.norms import build_norm
from .build import CONTEXT_REGISTRY, ContextBlock, check_widths

_ODD = number("above 0 that is odd", lambda value: value > 0 and value % 2 == 1, whole=True)


class NormedConv(nn.Conv2d):
    """A convolution that keeps the size of the map, and a normalization that knows padding."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 1, *, norm: str) -> None:
        """``kernel`` is odd, in cells. With a ``norm`` (:func:`build_norm`) there is no bias."""
        normed = build_norm(norm, out_channels, masked=True)
        super().__init__(
            in_channels, out_channels, kernel, padding=kernel // 2, bias=normed is None
        )
        self.norm = normed

    @property
    def shift(self) -> nn.Parameter:
        """What is added to each output channel at last, (out_channels,)."""
        return self.bias if self.norm is None else self.norm.bias

    def forward(self, x: Tensor, sizes: Tensor | None = None) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, H, W); ``sizes`` as in CONTEXT_REGISTRY."""
        x = super().forward(x)
        return x if self.norm is None else self.norm(x, sizes)


@CONTEXT_REGISTRY.register()
class Conv(ContextBlock):
    """Stacked convolutions, each with a ReLU: context of a few cells around (Fig. 5a and b).

    The paper compares its own block to it (sec. 5.4, Table 7).
    """

    @configurable
    def __init__(
        self,
        in_channels: int,
        *,
        hidden_dim: int = 512,
        out_dim: int = 512,
        num_stacks: int = 2,
        kernel_size: int = 3,
        norm: str = "",
    ) -> None:
        """The settings are keys of ``MODEL.CONTEXT``; one that is out of range raises IONError."""
        super().__init__()
        check_widths(hidden_dim, out_dim)
        check_value("MODEL.CONTEXT.NUM_STACKS", num_stacks, COUNT)
        check_value("MODEL.CONTEXT.KERNEL_SIZE", kernel_size, _ODD)
        widths = [in_channels, *[hidden_dim] * (num_stacks - 1), out_dim]
        self.convs = nn.ModuleList(
            NormedConv(before, after, kernel_size, norm=norm)
            for before, after in zip(widths, widths[1:])
        )
        for conv in self.convs:
            weight_init.c2_msra_fill(conv)
        self.out_channels = out_dim

    @in_float32
    def forward(self, x: Tensor, sizes: Tensor | None = None) -> Tensor:
        """The context feature; see ``CONTEXT_REGISTRY``."""
        x = keep_valid(x, sizes)
        for conv in self.convs:
            # What lies outside is 0 before every layer, as the padding of the image alone would be.
            x = keep_valid(torch.relu(conv(x, sizes)), sizes)
        return x
