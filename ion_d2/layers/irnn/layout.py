"""Memory formats of maps."""

from __future__ import annotations

import torch
from torch import Tensor


def memory_format_of(maps: Tensor) -> torch.memory_format:
    """The memory format of a map.

    Args:
        maps: (N, C, H, W) in any layout.

    Returns:
        ``torch.channels_last`` if the map is dense in that format alone, else
        ``torch.contiguous_format``.
    """
    if maps.is_contiguous() or not maps.is_contiguous(memory_format=torch.channels_last):
        return torch.contiguous_format
    return torch.channels_last


def empty_map(
    like: Tensor,
    channels: int,
    memory_format: torch.memory_format,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Allocate a map of another's size and place.

    Args:
        like: (N, C, H, W).
        channels: of the new map.
        memory_format: of the new map.
        dtype: of the new map; None: as ``like``.

    Returns:
        An uninitialized (N, channels, H, W) tensor on the same device.
    """
    shape = (like.shape[0], channels, *like.shape[2:])
    return torch.empty(
        shape, dtype=dtype or like.dtype, device=like.device, memory_format=memory_format
    )
