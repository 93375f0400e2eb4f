"""L2 normalization and 1x1 convolution of several max-pooled features whose bins share windows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .l2_norm import EPS, is_narrow
from .roi_max_pool import shares_windows

# Norms over all channels, which can be divided by after the product over channels.
_NORMS = ("roi", "position")


def can_merge_windows(x: Tensor, norm: str) -> bool:
    """Whether :func:`merge_windows` is for features such as ``x``, with this norm.

    In 16 bits, what is not yet divided by its norm would be beyond the range.
    """
    return norm in _NORMS and shares_windows(x) and not is_narrow(x)


def merge_windows(
    pooled: Sequence[tuple[Tensor, Tensor]],
    weights: Sequence[Tensor],
    scales: Sequence[Tensor | None],
    bias: Tensor,
    norm: str,
) -> Tensor:
    """Normalize pooled features, project each and add them up, with one product for each window.

    The projection is linear up to the norm (:mod:`ion_d2.layers.l2_norm`). A bin is therefore a sum
    of rows, one for each feature, out of a table of all projected windows, each divided by a norm.

    Args:
        pooled: of each feature (U, C) windows and (M, P, P) index of each bin's window, see
            :class:`ion_d2.layers.roi_max_pool.WindowMaxPool`.
        weights: (D, C) of the 1x1 convolution for each feature.
        scales: (C,) factors of the channels after the division for each feature; None is 1.
        bias: (D,) of the convolution.
        norm: "roi" or "position", see :func:`ion_d2.layers.l2_normalize`.

    Returns:
        (M, D, P, P), channels innermost in memory.
    """
    rows, factors, products = [], [], []
    before = 0
    for (windows, index), weight, scale in zip(pooled, weights, scales):
        products.append(F.linear(windows, weight if scale is None else weight * scale))
        rows.append(index + before)
        factors.append(_inverse_norms(windows, index, norm))
        before = before + windows.shape[0]
    merged = F.embedding_bag(
        torch.stack(rows, dim=-1).flatten(0, 2),
        torch.cat(products),
        per_sample_weights=torch.stack(factors, dim=-1).flatten(0, 2),
        mode="sum",
    )
    return (merged + bias).view(*rows[0].shape, bias.shape[0]).permute(0, 3, 1, 2)


def _inverse_norms(windows: Tensor, index: Tensor, norm: str) -> Tensor:
    """What the values of each bin are multiplied by, (M, P, P)."""
    norms = F.embedding(index, torch.linalg.vector_norm(windows, dim=1, keepdim=True))[..., 0]
    if norm == "roi":
        norms = torch.linalg.vector_norm(norms, dim=(1, 2), keepdim=True).expand_as(norms)
    return norms.clamp_min(EPS).reciprocal()
