"""ROI max pooling that is fast on a CPU; the results are torchvision's, bit for bit.

torchvision's CPU operator works in one thread and visits every channel of every bin by itself, in
memory that lies far apart; at the strides of skip pooling it takes longer than the network's fully
connected layers. In training, threads share the channels. Where no gradient is needed, a bin is the
maximum of four windows (``roi_window_max.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torchvision.ops import roi_pool

from .precision import common_dtype
from .roi_window_max import pool_windows

T = TypeVar("T")
R = TypeVar("R")


class ROIMaxPool(nn.Module):
    """In place of ``torchvision.ops.RoIPool``."""

    def __init__(self, output_size: tuple[int, int], scale: float) -> None:
        """
        Args:
            output_size: number of bins down and across.
            scale: cells a pixel, e.g. 1/16.
        """
        super().__init__()
        self.output_size = output_size
        self.scale = scale

    def forward(self, x: Tensor, rois: Tensor) -> Tensor:
        """Pool the maximum of each bin of each ROI.

        Args:
            x: (N, C, H, W) feature map.
            rois: (M, 5): index of the image, then x0 y0 x1 y1 in pixels.

        Returns:
            (M, C, *output_size); empty bins are 0. Gradients flow as torchvision's do.
        """
        rois = rois.to(common_dtype(x, rois))
        # In ONNX, torchvision's operator is a single node.
        if x.device.type != "cpu" or torch.onnx.is_in_onnx_export():
            return roi_pool(x.to(rois.dtype), rois, self.output_size, self.scale).to(x.dtype)
        if torch.is_grad_enabled() and x.requires_grad:
            return _ROIMaxPool.apply(x.to(rois.dtype), rois, self).to(x.dtype)
        pooled = pool_windows(x.detach().to(rois.dtype), rois, list(self.output_size), self.scale)
        return pooled.to(x.dtype)


class _ROIMaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rois: Tensor, layer: ROIMaxPool) -> Tensor:
        x = x.detach()  # gradients are on in a new thread
        # Channels innermost in memory, as a product over them wants it.
        out = x.new_empty(len(rois), *layer.output_size, x.shape[1]).permute(0, 3, 1, 2)
        # Half the memory, where an index of a cell has 15 bits.
        index = torch.int16 if x.shape[2:].numel() < 2**15 else torch.int32

        def pool(part: slice) -> Tensor:
            out[:, part], argmax = torch.ops.torchvision.roi_pool(
                x[:, part], rois, layer.scale, *layer.output_size
            )
            return argmax.to(index)

        parts = _parts(x.shape[1])
        ctx.save_for_backward(rois, *_in_threads(pool, parts))
        ctx.parts, ctx.shape, ctx.layer = parts, x.shape, layer
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        rois, *argmax = ctx.saved_tensors
        n, _, *size = ctx.shape
        grad_x = grad.new_empty(ctx.shape)

        def spread(part: tuple[slice, Tensor]) -> None:
            channels = grad[:, part[0]].contiguous()
            shape = n, channels.shape[1], *size
            grad_x[:, part[0]] = torch.ops.torchvision._roi_pool_backward(
                channels, rois, part[1].int(), ctx.layer.scale, *ctx.layer.output_size, *shape
            )

        _in_threads(spread, list(zip(ctx.parts, argmax)))
        return grad_x, None, None


def _parts(channels: int) -> list[slice]:
    """Small slices: what lies between two layouts stays in a cache."""
    step = max(16, -(-channels // (8 * torch.get_num_threads())))
    return [slice(i, min(i + step, channels)) for i in range(0, channels, step)]


def _in_threads(work: Callable[[T], R], parts: Sequence[T]) -> list[R]:
    """What ``work`` returns for each part, in order, by as many threads as PyTorch uses."""
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        return list(threads.map(work, parts))
