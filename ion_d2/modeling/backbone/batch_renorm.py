"""Batch Renormalization (Ioffe, 2017): the same function in training and at test time."""

from __future__ import annotations

import math
from typing import Any

import torch
from detectron2.utils import comm
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ...errors import IONError
from ...layers.irnn.arguments import compute_dtype, is_compiling, valid_mask
from ...layers.precision import without_autocast


class BatchRenorm2d(nn.BatchNorm2d):
    """Standardizes each channel by its running mean and deviation, in training too.

    In training, batch normalization uses the statistics of the batch: if all its images share a
    property that a feature describes, as context does, it subtracts exactly that signal. Here the
    forward pass always uses the running statistics. The backward pass is that of batch
    normalization (Ioffe, "Batch Renormalization", NeurIPS 2017, without the bounds on r and d), so
    that no gradient asks for a shift or scale of a channel that the running statistics would undo.

    Over the first ``1 / momentum`` batches the running statistics are the plain mean. Only the
    first batch is standardized by its own statistics. A batch is that of all processes together.
    """

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.02) -> None:
        """``momentum`` is the weight of a batch in the running statistics, above 0 and below 1."""
        super().__init__(channels, eps=eps, momentum=momentum)
        self._past: tuple[Tensor, ...] = ()  # mean and variance that standardized the last batch

    def forward(self, x: Tensor, sizes: Tensor | None = None) -> Tensor:
        """
        Args:
            x: (N, C, H, W) feature map.
            sizes: (N, 2), valid (height, width) of each image in cells, or None for all of the map.
                In training only valid cells count, and the others become 0.

        Returns:
            x's shape and type; computed in float32 at least in training.
        """
        if not self.training:
            return nn.functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        if sizes is None:
            return self._renormalize(x)
        valid = valid_mask(sizes, x.shape[2], x.shape[3], x.device)[:, 0]  # [N, H, W]
        cells = x.movedim(1, 3)
        result = torch.zeros_like(cells)
        result[valid] = self._renormalize(cells[valid])
        return result.movedim(3, 1)

    def _renormalize(self, x: Tensor) -> Tensor:
        """Run one batch, (N, C, H, W) or (M, C)."""
        if x.numel() == 0:
            return x
        with without_autocast(x.device.type):
            wide = x.to(compute_dtype(x.dtype))
            with torch.no_grad():
                _, mean, inverse = torch.native_batch_norm(
                    wide, None, None, None, None, True, 0.0, self.eps
                )
            variance = (inverse.square().reciprocal() - self.eps).clamp(min=0)
            share = None
            if comm.get_world_size() > 1:
                cells = x.numel() // self.num_features
                mean, variance, share = _over_processes(mean, variance, cells)
                inverse = (variance + self.eps).rsqrt()
            if not _is_recomputed():
                # The running statistics before this batch; for the first, its own.
                first = self.num_batches_tracked == 0
                past_mean = torch.where(first, mean, self.running_mean.to(mean.dtype))
                past_variance = torch.where(first, variance, self.running_var.to(mean.dtype))
                self._past = past_mean, past_variance
                self._follow(mean, variance)
            statistics = (*self._past, mean, inverse, share, self.eps)
            return _Renormalize.apply(wide, self.weight, self.bias, *statistics).to(x.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Update the running statistics by those of a batch."""
        if self.momentum == 1:
            # Each layer would standardize by the batch before alone, the next one that result, and
            # the averages explode.
            raise IONError(
                "Batch renormalization (BRN) has momentum 1, as fvcore's update_bn_stats sets it; "
                "BRN keeps its own statistics: put its layers into evaluation mode meanwhile."
            )
        self.num_batches_tracked += 1
        # A tensor, since reading the counter on the host would stall a GPU in every step.
        share = self.num_batches_tracked.to(mean.dtype).reciprocal().clamp(min=self.momentum)
        for running, new in ((self.running_mean, mean), (self.running_var, variance)):
            running.lerp_(new.to(running.dtype), share.to(running.dtype))

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        # torchvision's VGG files do not count the batches of their statistics, which the first
        # batch here must not replace.
        if self.num_batches_tracked == 0 and self.running_mean.any():
            self.num_batches_tracked.fill_(math.ceil(1 / self.momentum))


def _is_recomputed() -> bool:
    """Whether a checkpoint of activations runs a forward pass again, within the backward pass.

    What is compiled runs only once, and its tracing would stop at the question.
    """
    return not is_compiling() and torch._C._current_graph_task_id() >= 0


def _over_processes(mean: Tensor, variance: Tensor, cells: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance of the cells of all processes, and the share of them that is here."""
    own = torch.stack([torch.full_like(mean, cells), mean, variance])
    gathered = [torch.empty_like(own) for _ in range(comm.get_world_size())]
    torch.distributed.all_gather(gathered, own)
    counts, means, variances = torch.stack(gathered, dim=1)
    shares = counts / counts.sum(0)
    mean = (shares * means).sum(0)
    # How far the processes lie apart is part of the variance.
    variance = (shares * (variances + (means - mean).square())).sum(0)
    return mean, variance, shares[comm.get_rank()]


class _Renormalize(torch.autograd.Function):
    """Ioffe's ``(x - mean) / deviation * r + d`` with the constants r and d of its Eq. 2.

    The forward pass uses the running statistics alone, so that the batch does not enter even by
    rounding. The backward pass differentiates through the mean and deviation of the batch: it is
    torch's of batch normalization, whose output was scaled by r.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, *statistics: Any) -> Tensor:
        past_mean, past_variance, mean, inverse, share, ctx.eps = statistics
        ctx.save_for_backward(x, weight, past_mean, past_variance, mean, inverse, share)
        return nn.functional.batch_norm(x, past_mean, past_variance, weight, bias, eps=ctx.eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, past_mean, past_variance, mean, inverse, share = ctx.saved_tensors
        past = (past_variance + ctx.eps).rsqrt()
        r, d = past / inverse, (mean - past_mean) * past
        for_x, by_standardized, for_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, x, r * weight, None, None, mean, inverse, True, ctx.eps, [True] * 3
        )
        if share is not None:
            # It took off the means of this process' gradient; they should be those of all.
            own = torch.stack([for_bias, by_standardized]) * len(mean) / x.numel()
            every = own * share
            torch.distributed.all_reduce(every)
            level, slope = r * weight * inverse * (own - every)
            slope *= inverse
            channels = (-1, *[1] * (x.dim() - 2))
            for_x.addcmul_(x, slope.view(channels)).add_((level - slope * mean).view(channels))
        for_weight = r * by_standardized + d * for_bias
        return for_x, for_weight, for_bias, *[None] * 6
