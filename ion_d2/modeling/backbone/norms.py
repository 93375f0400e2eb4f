"""The one door to normalizations: Detectron2's, and ION's own."""

from __future__ import annotations

from typing import Any

from detectron2.layers import get_norm
from torch import nn

from ...errors import IONError
from .batch_renorm import BatchRenorm2d

# Those that take the valid sizes as a second argument and then see no padding.
MASKED_NORMS = {"BRN": BatchRenorm2d}


def build_norm(norm: str, channels: int, *, masked: bool = False) -> Any:
    """Build a normalization by its name.

    Args:
        norm: one of :data:`MASKED_NORMS`, or "" for None. Unless ``masked``, also any name known to
            Detectron2's ``get_norm``. "GN" has 32 groups where these get two or more channels each,
            and otherwise groups of 8 channels.
        masked: whether it will be called with the valid sizes, as in a context block, where
            normalizing over one image (GN) or a padded batch (BN) would see the padding.

    Raises:
        IONError: unknown ``norm``; the message names the config key.
    """
    if norm in MASKED_NORMS:
        return MASKED_NORMS[norm](channels)
    if masked and norm:
        raise IONError(f"MODEL.CONTEXT.NORM is {norm!r}; use one of {['', *MASKED_NORMS]}.")
    # 32 groups fit only multiples of 32, and with 32 channels would normalize each channel alone.
    if norm == "GN" and (channels % 32 or channels < 64):
        return nn.GroupNorm(channels // 8, channels)
    try:
        return get_norm(norm, channels)
    except KeyError:
        raise IONError(
            f"MODEL.VGG.NORM is {norm!r}, which Detectron2's get_norm does not know; use for "
            f'instance "", "GN", "BN", "SyncBN", "FrozenBN", or ION\'s own {[*MASKED_NORMS]}.'
        ) from None
