"""L2 normalization of pooled ROI features, alone and in one step with what follows it.

What follows are a scale and a 1x1 convolution (paper sec. 3.1 and 5.2). They are linear in the
feature up to its norm: W (s * x / ||x||) = (W diag(s)) x / ||x||. Several features are concatenated
by adding what each projects to, so that nothing normalized, scaled or concatenated is ever written.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .irnn.arguments import compute_dtype
from .precision import autocast_dtype, keep_range, without_autocast

# What one norm spans: "roi" all entries of a pooled feature, "position" the channels at one bin.
NORMS = ("roi", "position", "none")

# Norms below this count as this. Far below the norm of any live feature (about 10 to 1000), yet
# large enough that the gradient of a feature which is zero nearly everywhere stays bounded.
EPS = 1e-4

# Norms of vectors that hold all channels, which can be divided by after the product over channels.
# The gradient below is that of L2 norms.
_AFTER = ("roi", "position")


def l2_normalize(x: Tensor, norm: str, scale: Tensor | None = None) -> Tensor:
    """Divide every pooled feature by its L2 norm, and scale its channels.

    Args:
        x: (M, C, P, P) pooled features of M ROIs.
        norm: "roi" (one norm per ROI, over all entries), "position" (one norm per bin, over the
            channels) or "none" (``x`` is returned as it is).
        scale: (C,) factors of the channels after the division; None is 1. Not with "none".

    Returns:
        Of x's shape and type. The division runs in float32 at least.

    Raises:
        ValueError: ``norm`` is none of the three, or there is a scale without a norm.
    """
    if norm == "none":
        if scale is not None:
            raise ValueError("a scale needs a norm, got norm 'none'")
        return x
    with without_autocast(x.device.type):
        wide = x.to(compute_dtype(x.dtype))
        factor = inverse_norm(wide, norm)
        if scale is not None:
            # With "roi" this has one number for each channel of a ROI, and saves a pass over x.
            factor = factor * scale.to(wide.dtype)[:, None, None]
        return (wide * factor).to(x.dtype)


def inverse_norm(x: Tensor, norm: str) -> Tensor:
    """What :func:`l2_normalize` multiplies by: (M, 1, 1, 1) with "roi", else (M, 1, P, P)."""
    return (
        torch.linalg.vector_norm(x, dim=norm_dims(norm), keepdim=True).clamp_min(EPS).reciprocal()
    )


def mean_l2_norm(x: Tensor, norm: str) -> Tensor:
    """Mean of the norms by which :func:`l2_normalize` divides, over M > 0 pooled features."""
    return torch.linalg.vector_norm(x.to(compute_dtype(x.dtype)), dim=norm_dims(norm)).mean()


def norm_dims(norm: str) -> tuple[int, ...]:
    """The axes of (M, C, P, P) that one norm spans; ValueError where there is none."""
    if norm not in ("roi", "position"):
        raise ValueError(f"norm must be one of {NORMS}, got {norm!r}")
    return (1, 2, 3) if norm == "roi" else (1,)


def normalized_projection(
    x: Tensor, weight: Tensor, norm: str, scale: Tensor | None = None
) -> Tensor:
    """``F.conv2d(l2_normalize(x, norm, scale), weight)``, without its intermediate results.

    Args:
        x: (M, C, P, P) pooled features of M ROIs.
        weight: (D, C) of the 1x1 convolution.
        norm: see :func:`ion_d2.layers.l2_normalize`.
        scale: (C,) factors of the channels after the division; None is 1. Not with "none".

    Returns:
        (M, D, P, P); equal to the composition up to rounding.

    Raises:
        ValueError: see :func:`ion_d2.layers.l2_normalize`.
    """
    if not divided_after(x, norm):
        x = l2_normalize(x, norm, scale)
        with keep_range(x):
            return _project(x, weight)
    if scale is None:
        scale = x.new_ones(x.shape[1])
    differentiated = torch.is_grad_enabled() and any(t.requires_grad for t in (x, weight, scale))
    if differentiated and x.device.type == "cpu":
        return _Projection.apply(x, weight, scale, norm)
    projected, inverse = _project(x, weight * scale), inverse_norm(x, norm)
    return projected * inverse if differentiated else projected.mul_(inverse)


def divided_after(x: Tensor, norm: str) -> bool:
    """Whether ``x`` may be divided by its norm after the product over its channels.

    In 16 bits, what is not yet divided would be beyond the range.
    """
    narrow = x.element_size() < 4 or autocast_dtype(x.device.type) is not None
    return norm in _AFTER and not narrow


def _project(x: Tensor, weight: Tensor) -> Tensor:
    if x.device.type != "cpu":
        return F.conv2d(x, weight[:, :, None, None])
    # One large matrix product; the convolution would reorder its input first.
    return F.linear(x.permute(0, 2, 3, 1), weight).permute(0, 3, 1, 2)


def _rows(x: Tensor) -> Tensor:
    """(M, C, P, P) as (M * P * P, C)."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


class _Projection(torch.autograd.Function):
    """Keeps only what is there anyway, the pooled feature; the gradient needs no more."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, scale: Tensor, norm: str) -> Tensor:
        inverse = inverse_norm(x, norm)
        ctx.save_for_backward(x, weight, scale, inverse)
        ctx.norm = norm
        # Not in place: torch.compile would lose the gradient.
        return _project(x, weight * scale) * inverse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None]:
        x, weight, scale, inverse = ctx.saved_tensors
        grad = (grad * inverse).contiguous(memory_format=torch.channels_last)
        by_weight = _rows(grad).t() @ _rows(x)
        for_factors = by_weight * scale, (by_weight * weight).sum(0)
        if not ctx.needs_input_grad[0]:  # what a frozen backbone gives
            return None, *for_factors, None
        grad_x = _project(grad, (weight * scale).t())
        # A unit vector does not change along itself; a norm that is held at its least is constant.
        along = (grad_x * x).sum(norm_dims(ctx.norm), keepdim=True) * inverse.square()
        grad_x.addcmul_(x, along.masked_fill_(inverse >= 1 / EPS, 0), value=-1)
        return grad_x, *for_factors, None
