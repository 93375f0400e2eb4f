"""ROI max pooling that is fast on a CPU; the results are torchvision's, bit for bit.

Only NaN and minus infinity, which torchvision passes over, come through where there is no gradient.

torchvision's CPU operator works in one thread and pools each bin of each ROI by itself. Fast
R-CNN's bins are made of whole cells, though, and ROIs overlap, so that many bins read the very same
cells: of the bins of an RPN's 300 proposals on a map of stride 16, only three in ten read a window
of cells that no bin before them reads. Each window is pooled once here, and a product over the
channels is not taken more often either (``merged_windows.py``). Without a gradient this is
TorchScript, so that an exported model pools as fast as the one it came from.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torchvision.ops import roi_pool

from .precision import common_dtype
from .window_maxima import window_maxima

# How many windows there are depends on the boxes; torch.compile would run out of cases.
_left_by_compile = torch.compiler.disable if hasattr(torch, "compiler") else lambda run: run


class ROIMaxPool(nn.Module):
    """In place of ``torchvision.ops.RoIPool``."""

    def __init__(self, output_size: tuple[int, int], scale: float) -> None:
        """
        Args:
            output_size: number of bins down and across.
            scale: cells a pixel, e.g. 1/16.
        """
        super().__init__()
        self.windows = WindowMaxPool(output_size, scale)

    def forward(self, x: Tensor, rois: Tensor) -> Tensor:
        """Pool the maximum of each bin of each ROI.

        Args:
            x: (N, C, H, W) feature map.
            rois: (M, 5): index of the image, then x0 y0 x1 y1 in pixels.

        Returns:
            (M, C, *output_size); empty bins are 0. Gradients are torchvision's, up to rounding.
        """
        if shares_windows(x):
            return spread_windows(*self.windows(x, rois))
        rois = rois.to(common_dtype(x, rois))
        own = self.windows
        return roi_pool(x.to(rois.dtype), rois, own.output_size, own.scale).to(x.dtype)


class WindowMaxPool(nn.Module):
    """Pools the windows of cells that the bins of ROIs read, each of them once."""

    def __init__(self, output_size: tuple[int, int], scale: float) -> None:
        """See :class:`ROIMaxPool`."""
        super().__init__()
        self.output_size = output_size
        self.scale = scale

    @_left_by_compile
    def forward(self, x: Tensor, rois: Tensor) -> tuple[Tensor, Tensor]:
        """Pool the maximum of each window.

        Args:
            x: (N, C, H, W) feature map, on a CPU.
            rois: (M, 5): index of the image, then x0 y0 x1 y1 in pixels.

        Returns:
            (U, C) maxima of the windows, and (M, *output_size) index of each bin's window.
        """
        rois = rois.to(common_dtype(x, rois))
        windows, index = bin_windows(x, rois, list(self.output_size), self.scale)
        wide = x.to(rois.dtype)
        if torch.is_grad_enabled() and x.requires_grad:
            return _WindowMaxima.apply(wide, windows).to(x.dtype), index
        maxima, places = window_maxima(wide.detach(), windows)
        return maxima.to(x.dtype), places[index]


def shares_windows(x: Tensor) -> bool:
    """Whether a feature map is pooled by windows: on a CPU; in ONNX, torchvision's is one node."""
    return x.device.type == "cpu" and not torch.onnx.is_in_onnx_export()


def spread_windows(windows: Tensor, index: Tensor) -> Tensor:
    """(U, C) of windows and (M, P, Q) index of each bin's window: (M, C, P, Q) of the bins."""
    return F.embedding(index, windows).permute(0, 3, 1, 2)


@torch.jit.script_if_tracing
def bin_windows(
    x: Tensor, rois: Tensor, output_size: list[int], scale: float
) -> tuple[Tensor, Tensor]:
    """Find the cells of each bin of each ROI; bins of the same cells share a window.

    Args:
        x: (N, C, H, W) feature map.
        rois: (M, 5): index of the image, then x0 y0 x1 y1 in pixels.
        output_size: number of bins down and across.
        scale: cells a pixel.

    Returns:
        (U, 5) windows, all different, in order: index of the image, first row, one past the last,
        first column, one past the last (empty where that is not above the first); and
        (M, *output_size) index of each bin's window.
    """
    tops, bottoms = _edges(rois[:, 2], rois[:, 4], output_size[0], scale, x.size(2))
    lefts, rights = _edges(rois[:, 1], rois[:, 3], output_size[1], scale, x.size(3))
    high, wide = x.size(2) + 1, x.size(3) + 1
    rows = (rois[:, :1].long() * high + tops) * high + bottoms
    columns = lefts * wide + rights
    numbers = (rows * (wide * wide))[:, :, None] + columns[:, None]
    numbers, index = torch.unique(numbers, return_inverse=True)
    windows: list[Tensor] = []
    for base in (wide, wide, high, high):
        windows.insert(0, numbers % base)
        numbers = numbers.div(base, rounding_mode="floor")
    return torch.stack([numbers] + windows, dim=1), index


def _edges(
    start: Tensor, end: Tensor, bins: int, scale: float, limit: int
) -> tuple[Tensor, Tensor]:
    """First and one past the last cell of each bin along one side, (M, bins) each.

    The arithmetic is Fast R-CNN's, of whole cells, in the dtype of the ROIs. Edges that are no
    number are 0.
    """
    first = _round(start * scale)
    span = (_round(end * scale) - first + 1).clamp(min=1)
    edges = torch.arange(bins + 1, dtype=start.dtype) * (span / bins)[:, None]
    lows, highs = edges[:, :-1].floor() + first[:, None], edges[:, 1:].ceil() + first[:, None]
    return lows.nan_to_num().clamp(0, limit).long(), highs.nan_to_num().clamp(0, limit).long()


def _round(x: Tensor) -> Tensor:
    """Round halves away from zero, as C does; torch rounds them to even numbers."""
    return (x.sign() * (x.abs().double() + 0.5).floor()).to(x.dtype)


class _WindowMaxima(torch.autograd.Function):
    """The maxima of windows by torchvision's operator; threads share the channels."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, windows: Tensor) -> Tensor:
        x = x.detach()  # gradients are on in a new thread
        rois = _as_rois(windows, x)
        out = x.new_empty(len(rois), x.shape[1])
        # Half the memory, where an index of a cell has 15 bits.
        index = torch.int16 if x.shape[2:].numel() < 2**15 else torch.int32

        def pool(part: slice) -> Tensor:
            found, argmax = torch.ops.torchvision.roi_pool(x[:, part], rois, 1.0, 1, 1)
            out[:, part] = found[:, :, 0, 0]
            return argmax.to(index)

        parts = _parts(x.shape[1])
        with ThreadPoolExecutor(torch.get_num_threads()) as threads:
            ctx.save_for_backward(rois, *threads.map(pool, parts))
        ctx.parts, ctx.shape = parts, x.shape
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        rois, *argmax = ctx.saved_tensors
        n, _, *size = ctx.shape
        grad_x = grad.new_empty(ctx.shape)

        def spread(part: slice, argmax: Tensor) -> None:
            channels = grad[:, part, None, None].contiguous()
            grad_x[:, part] = torch.ops.torchvision._roi_pool_backward(
                channels, rois, argmax.int(), 1.0, 1, 1, n, channels.shape[1], *size
            )

        with ThreadPoolExecutor(torch.get_num_threads()) as threads:
            list(threads.map(spread, ctx.parts, argmax))  # which raises what a thread raises
        return grad_x, None


def _as_rois(windows: Tensor, x: Tensor) -> Tensor:
    """Windows as ROIs of a single bin, in cells; empty ones lie outside the map (N, C, H, W)."""
    image, top, bottom, left, right = windows.unbind(1)
    top = top.masked_fill(bottom <= top, x.shape[2])
    left = left.masked_fill(right <= left, x.shape[3])
    return torch.stack([image, left, top, right - 1, bottom - 1], dim=1).to(x.dtype)


def _parts(channels: int) -> list[slice]:
    """Small slices: what lies between two layouts stays in a cache."""
    step = max(16, -(-channels // (8 * torch.get_num_threads())))
    return [slice(i, i + step) for i in range(0, channels, step)]
