"""Memory formats of maps, kept by the spatial IRNN so that networks in channels-last stay in it."""

from __future__ import annotations

import torch
from torch import Tensor


def memory_format(tensor: Tensor) -> torch.memory_format:
    """Tell the memory format of a result that belongs to a map.

    Args:
        tensor: (N, C, H, W) in any layout.

    Returns:
        ``torch.channels_last`` if the map is dense in that format alone, else
        ``torch.contiguous_format``.
    """
    if tensor.is_contiguous() or not tensor.is_contiguous(memory_format=torch.channels_last):
        return torch.contiguous_format
    return torch.channels_last


def empty_map(like: Tensor, channels: int, dtype: torch.dtype) -> Tensor:
    """Allocate a map in the :func:`memory_format` of another.

    Args:
        like: (N, C, H, W).
        channels: of the new map.
        dtype: of the new map.

    Returns:
        An uninitialised (N, channels, H, W) tensor on the same device.
    """
    shape = (like.shape[0], channels, *like.shape[2:])
    return torch.empty(shape, dtype=dtype, device=like.device, memory_format=memory_format(like))
