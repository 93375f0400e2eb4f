"""L2 normalisation of pooled ROI features (paper sec. 3.1 and 5.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# What one norm spans: "roi" all entries of a pooled feature, "position" the channels at one bin.
NORMS = ("roi", "position", "none")

# Norms below this count as this. Far below the norm of any live feature (about 10 to 1000), yet
# large enough that the gradient of a feature which is zero nearly everywhere stays bounded.
_EPS = 1e-4


def l2_normalize(x: Tensor, norm: str) -> Tensor:
    """Divide every pooled feature by its L2 norm.

    Args:
        x: (M, C, P, P) pooled features of M ROIs.
        norm: "roi" (one norm per ROI, over all entries), "position" (one norm per bin, over the
            channels) or "none" (``x`` is returned as it is).

    Returns:
        A tensor of x's shape and type. The division runs in float32 at least.

    Raises:
        ValueError: ``norm`` is none of the three.
    """
    if norm == "none":
        return x
    dims = _dims(norm)
    with torch.autocast(x.device.type, enabled=False):
        return F.normalize(_widen(x), p=2.0, dim=dims, eps=_EPS).to(x.dtype)


def mean_l2_norm(x: Tensor, norm: str) -> Tensor:
    """Mean of the norms by which :func:`l2_normalize` divides.

    Args:
        x: (M, C, P, P) pooled features, M > 0.
        norm: "roi" or "position".

    Returns:
        A scalar tensor, float32 at least.
    """
    return torch.linalg.vector_norm(_widen(x), dim=_dims(norm)).mean()


def _dims(norm: str) -> tuple:
    if norm not in ("roi", "position"):
        raise ValueError(f"norm must be one of {NORMS}, got {norm!r}")
    return (1, 2, 3) if norm == "roi" else (1,)


def _widen(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
