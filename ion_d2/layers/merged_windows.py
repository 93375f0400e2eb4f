"""L2 normalization and 1x1 convolution of several max-pooled features whose bins share windows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .l2_norm import divided_after, inverse_norm
from .roi_max_pool import shares_windows, spread_windows


def can_merge_windows(x: Tensor, norm: str) -> bool:
    """Whether :class:`MergedWindows` is for features such as ``x``, with this norm."""
    return shares_windows(x) and divided_after(x, norm)


class MergedWindows:
    """Normalizes pooled features, projects each and adds them up; one product for each window.

    The projection is linear up to the norm (:mod:`ion_d2.layers.l2_norm`). A bin is therefore a sum
    of rows, one for each feature, out of a table of all projected windows, each divided by a norm.
    """

    def __init__(self, norm: str) -> None:
        """See :func:`ion_d2.layers.l2_normalize`; "roi" or "position"."""
        self.norm = norm
        self._rows: list[Tensor] = []
        self._factors: list[Tensor] = []
        self._products: list[Tensor] = []

    def add(
        self, windows: Tensor, index: Tensor, weight: Tensor, scale: Tensor | None = None
    ) -> None:
        """Add a feature, as :class:`ion_d2.layers.roi_max_pool.WindowMaxPool` pools it.

        Args:
            windows: (U, C) maxima of U windows.
            index: (M, P, P) window of each bin.
            weight: (D, C) of the 1x1 convolution.
            scale: (C,) factors of the channels after the division; None is 1.
        """
        self._rows.append(index + sum(product.shape[0] for product in self._products))
        self._products.append(F.linear(windows, weight if scale is None else weight * scale))
        norms = torch.linalg.vector_norm(windows, dim=1, keepdim=True)
        norms = spread_windows(norms, index)  # of each bin, as if it had a single channel
        self._factors.append(inverse_norm(norms, self.norm).expand_as(norms)[:, 0])

    def merge(self, total: Tensor) -> Tensor:
        """Add all features to ``total``, (D, 1, 1) or (M, D, P, P): (M, D, P, P)."""
        if not self._rows:
            return total
        table = torch.cat(self._products)
        self._products.clear()  # as much memory as the table
        merged = F.embedding_bag(
            torch.stack(self._rows, dim=-1).flatten(0, 2),
            table,
            per_sample_weights=torch.stack(self._factors, dim=-1).flatten(0, 2),
            mode="sum",
        )
        merged = merged.view(*self._rows[0].shape, total.shape[-3])
        return merged.permute(0, 3, 1, 2).add_(total)
