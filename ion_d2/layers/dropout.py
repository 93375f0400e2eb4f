"""Dropout that does not wait for random numbers on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Dropout(nn.Dropout):
    """``nn.Dropout``, several times as fast on a CPU that is not Intel's.

    There PyTorch draws whether an entry stays from a generator of Bernoulli numbers that takes four
    times as long as one of uniform numbers.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Zero entries with probability ``p`` and divide the others by 1 - p, in training."""
        if x.device.type != "cpu" or not self.training or self.p in (0, 1):
            return super().forward(x)
        # Uniform numbers of 16 bits are too coarse for a probability.
        dtype = torch.promote_types(x.dtype, torch.float32)
        kept = torch.rand(x.shape, dtype=dtype).ge_(self.p).mul_(1 / (1 - self.p))
        return x * kept.to(x.dtype)
