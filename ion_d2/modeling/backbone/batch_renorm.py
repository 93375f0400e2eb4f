"""Batch Renormalization (Ioffe, 2017): the same function in training and at test time."""

from __future__ import annotations

import math
from typing import Any

import torch
from detectron2.utils import comm
from torch import Tensor, nn

from ...errors import IONError
from ...layers.irnn.arguments import compute_dtype, valid_mask

NORMS = ("", "BRN")


class BatchRenorm2d(nn.BatchNorm2d):
    """Standardises each channel by its running mean and deviation, in training too.

    Batch normalisation uses the batch's statistics in training and running ones at test time. For
    a feature that tells something about the whole image, as context does, the two differ: a batch
    of two images of one kind takes off just what that kind is known by. Here the forward pass is
    the same at both times, and depends on nothing but the cell at hand and the past. The backward
    pass is that of batch normalisation (Ioffe, "Batch Renormalization", NeurIPS 2017, with the
    bounds on its r and d left out): no gradient asks for a shift or a stretch of a whole channel,
    which the running statistics would undo a little later.

    Until ``1 / momentum`` batches were seen, the running statistics are their plain mean, so that
    they describe the data from the start; only the very first batch is taken by its own.
    """

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.02) -> None:
        """
        Args:
            channels: channels of the input.
            eps: what is added to the variance before its root.
            momentum: weight of a batch in the running statistics, in (0, 1].
        """
        super().__init__(channels, eps=eps, momentum=momentum)

    def forward(self, x: Tensor, sizes: Tensor | None = None) -> Tensor:
        """
        Args:
            x: (N, C, H, W) feature map.
            sizes: (N, 2), valid (height, width) of each image in cells, or None for all of the map.
                Only valid cells count.

        Returns:
            A tensor of x's shape and type. In training it is computed in float32 at least.
        """
        if not self.training:
            return self._standardise(x)
        with torch.autocast(x.device.type, enabled=False):
            return self._renormalise(x.to(compute_dtype(x.dtype)), sizes).to(x.dtype)

    def _standardise(self, x: Tensor) -> Tensor:
        return nn.functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )

    def _renormalise(self, x: Tensor, sizes: Tensor | None) -> Tensor:
        mean, variance = _moments(x, sizes)
        past_mean, past_variance = self._past(mean.detach(), variance.detach())
        self._follow(mean.detach(), variance.detach())
        past = (past_variance + self.eps).rsqrt()
        # Ioffe's (x - mean) / deviation * r + d, where r and d carry no gradient, as x * factor -
        # offset. By their values, the two are the past's alone, to the last bit.
        inverse = (variance + self.eps).rsqrt()
        factor = _valued(past, inverse * (past / inverse).detach())
        shift = ((mean - past_mean) * past).detach()
        offset = _valued(past_mean * past, mean * factor - shift)
        scale = factor * self.weight
        return x * scale[:, None, None] + (self.bias - offset * self.weight)[:, None, None]

    def _past(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """The running statistics before this batch; the very first one has but its own."""
        first = self.num_batches_tracked == 0
        past_mean = torch.where(first, mean, self.running_mean.to(mean.dtype))
        return past_mean, torch.where(first, variance, self.running_var.to(variance.dtype))

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Update the running statistics, by the same numbers in all processes."""
        if comm.get_world_size() > 1:
            both = torch.stack([mean, variance])
            torch.distributed.all_reduce(both)
            mean, variance = both / comm.get_world_size()
        self.num_batches_tracked += 1
        # A tensor, since reading the counter on the host would stall a GPU in every step.
        share = self.num_batches_tracked.to(mean.dtype).reciprocal().clamp(min=self.momentum)
        for running, new in ((self.running_mean, mean), (self.running_var, variance)):
            running.lerp_(new.to(running.dtype), share.to(running.dtype))

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        # Statistics of batch normalisation, from files that do not count its batches (torchvision's
        # VGGs): the first batch here must not replace them.
        if self.num_batches_tracked == 0 and self.running_mean.any():
            self.num_batches_tracked.fill_(math.ceil(1 / self.momentum))

    def extra_repr(self) -> str:
        """What tells one such layer from another."""
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}"


def _moments(x: Tensor, sizes: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean and (biased) variance of each channel over the valid cells, (C,) each."""
    if sizes is None:
        variance, mean = torch.var_mean(x, dim=(0, 2, 3), unbiased=False)
        return mean, variance
    valid = valid_mask(sizes, x.shape[2], x.shape[3], x.device)
    count = valid.sum().clamp(min=1)
    mean = x.masked_fill(~valid, 0.0).sum(dim=(0, 2, 3)) / count
    square = (x - mean[:, None, None]).masked_fill(~valid, 0.0).square()
    return mean, square.sum(dim=(0, 2, 3)) / count


def _valued(value: Tensor, like: Tensor) -> Tensor:
    """A tensor with this value and the gradient of another."""
    return value + (like - like.detach())


def build_norm(norm: str, channels: int) -> BatchRenorm2d | None:
    """Build the normalisation that a context block's layers share.

    Args:
        norm: ``MODEL.CONTEXT.NORM``, "" or "BRN".
        channels: channels of the layer.

    Returns:
        The module, called with (x, sizes); None for "".

    Raises:
        IONError: another name. Normalisations over one image (GN) or one batch (BN) are left out:
            they see the padding, and are context of their own.
    """
    if norm not in NORMS:
        raise IONError(
            f"MODEL.CONTEXT.NORM is {norm!r}; use one of {NORMS} (BRN: batch renormalisation)."
        )
    return BatchRenorm2d(channels) if norm else None
