"""Batch normalization of timm's networks that no longer changes."""

from __future__ import annotations

from detectron2.layers import FrozenBatchNorm2d
from torch import Tensor, nn


class ConstantNorm(FrozenBatchNorm2d):
    """Detectron2's frozen batch normalization, with the activation that timm makes part of a layer.

    In place of timm's own frozen layers, which pass over each map three times even where no
    gradient is needed; the values and the names in a checkpoint are the same.
    """

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        """
        Args:
            norm: the layer of whose weights and statistics this takes copies.
        """
        super().__init__(norm.num_features, norm.eps)
        # Not strict: a layer may have no weights, and counts its batches.
        self.load_state_dict(norm.state_dict(), strict=False)
        for name, layer in norm.named_children():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        """Normalize a map of shape (N, C, H, W), and activate it."""
        x = super().forward(x)
        for layer in self.children():
            x = layer(x)
        return x
