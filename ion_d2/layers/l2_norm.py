"""L2 normalization of pooled ROI features (paper sec. 3.1 and 5.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from .irnn.arguments import compute_dtype

# What one norm spans: "roi" all entries of a pooled feature, "position" the channels at one bin.
NORMS = ("roi", "position", "none")

# Norms below this count as this. Far below the norm of any live feature (about 10 to 1000), yet
# large enough that the gradient of a feature which is zero nearly everywhere stays bounded.
EPS = 1e-4


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
    with torch.autocast(x.device.type, enabled=False):
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
