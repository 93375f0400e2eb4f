"""Batch normalization that no longer changes, in one pass over a map."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ConstantNorm(nn.Module):
    """A batch normalization at rest: what it learned and measured are buffers.

    In place of timm's frozen layers, which pass over each map three times; the values and the names
    in a checkpoint are the same. What timm has made part of a layer (dropping, the activation)
    follows in the layer's order.
    """

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        """
        Args:
            norm: the layer of whose weights and statistics this takes copies.
        """
        super().__init__()
        self.eps = norm.eps
        statistics = norm.running_mean, norm.running_var
        weight = torch.ones_like(statistics[0]) if norm.weight is None else norm.weight
        bias = torch.zeros_like(weight) if norm.bias is None else norm.bias
        names = "weight", "bias", "running_mean", "running_var"
        for name, value in zip(names, (weight, bias, *statistics)):
            self.register_buffer(name, value.detach().clone())
        for name, layer in norm.named_children():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        """Normalize a map of shape (N, C, H, W)."""
        x = F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )
        for layer in self.children():
            x = layer(x)
        return x
