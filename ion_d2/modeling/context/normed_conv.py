"""A convolution of a context block with its normalization."""

from __future__ import annotations

from torch import Tensor, nn

from ..backbone.batch_renorm import build_norm


class NormedConv(nn.Conv2d):
    """A convolution that keeps the size of the map, and a normalization that knows padding."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 1, *, norm: str) -> None:
        """
        Args:
            in_channels: channels of the input.
            out_channels: channels of the output.
            kernel: side of the kernel in cells, odd.
            norm: see :func:`build_norm`. Where there is one, the convolution has no bias.

        Raises:
            IONError: unknown ``norm``.
        """
        normed = build_norm(norm, out_channels)
        super().__init__(
            in_channels, out_channels, kernel, padding=kernel // 2, bias=normed is None
        )
        self.norm = normed

    @property
    def shift(self) -> nn.Parameter:
        """What is added to each output channel at last, (out_channels,)."""
        return self.bias if self.norm is None else self.norm.bias

    def forward(self, x: Tensor, sizes: Tensor | None = None) -> Tensor:
        """
        Args:
            x: (N, in_channels, H, W).
            sizes: (N, 2), valid (height, width) of each image in cells, or None for all of the map.

        Returns:
            (N, out_channels, H, W).
        """
        x = super().forward(x)
        return x if self.norm is None else self.norm(x, sizes)
