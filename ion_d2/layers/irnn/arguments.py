"""What every implementation of the spatial IRNN accepts, and the checks they share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Travel(NamedTuple):
    """How a direction sweeps a map.

    Attributes:
        axis: the one of (N, C, H, W) along which it travels.
        backwards: whether it starts at the last row or column.
    """

    axis: int
    backwards: bool


# The directions of travel, in the order in which the paper names them (sec. 3.2).
TRAVEL = {
    "right": Travel(axis=3, backwards=False),
    "left": Travel(axis=3, backwards=True),
    "down": Travel(axis=2, backwards=False),
    "up": Travel(axis=2, backwards=True),
}
DIRECTIONS = tuple(TRAVEL)

# Types of a map and of a weight.
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_arguments(
    x: Tensor, weight: Tensor | None, directions: Sequence[str], sizes: Tensor | None
) -> None:
    """Refuse arguments that the spatial IRNN is not defined for.

    Args:
        x: see :func:`ion_d2.layers.spatial_irnn`, like the other arguments.
        weight: None, (D, C) or (D, C, C).
        directions: D names.
        sizes: None or (N, 2).

    Raises:
        TypeError: a tensor is not of one of ``DTYPES``, or ``sizes`` is not of an integer type.
        ValueError: a shape, a device, a direction or a size does not fit.
    """
    if x.dim() != 4:
        raise ValueError(f"x must have the shape (N, C, H, W), got {tuple(x.shape)}")
    _check_dtype("x", x)
    _check_directions(directions)
    if weight is not None:
        _check_weight(x, weight, len(directions))
    if sizes is not None:
        _check_sizes(x, sizes)


def _check_dtype(name: str, tensor: Tensor) -> None:
    if tensor.dtype not in DTYPES:
        known = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
        raise TypeError(f"{name} must be a floating-point tensor ({known}), got {tensor.dtype}")


def _check_directions(directions: Sequence[str]) -> None:
    unknown = [d for d in directions if d not in DIRECTIONS]
    if unknown or isinstance(directions, str) or not directions:
        raise ValueError(f"directions must be a sequence of {DIRECTIONS}, got {directions!r}")


def _check_weight(x: Tensor, weight: Tensor, num_directions: int) -> None:
    channels = x.shape[1]
    diagonal = (num_directions, channels)
    full = (num_directions, channels, channels)
    if tuple(weight.shape) not in (diagonal, full):
        raise ValueError(
            f"weight must have the shape {diagonal} (diagonal) or {full} (full) for "
            f"{num_directions} directions and {channels} channels, got {tuple(weight.shape)}"
        )
    _check_dtype("weight", weight)
    if weight.device != x.device:
        raise ValueError(f"weight must be on x's device {x.device}, got {weight.device}")


def _check_sizes(x: Tensor, sizes: Tensor) -> None:
    if tuple(sizes.shape) != (x.shape[0], 2):
        raise ValueError(f"sizes must have the shape {(x.shape[0], 2)}, got {tuple(sizes.shape)}")
    if sizes.is_floating_point() or sizes.is_complex() or sizes.dtype == torch.bool:
        raise TypeError(f"sizes must be an integer tensor, got {sizes.dtype}")
    if sizes.device.type == "cpu" and not _is_compiling():
        _check_size_values(x, sizes)


def _is_compiling() -> bool:
    """Whether torch.compile or torch.export runs this; they do not know a tensor's values."""
    compiling = getattr(getattr(torch, "compiler", None), "is_compiling", None)
    return compiling is not None and compiling()


def _check_size_values(x: Tensor, sizes: Tensor) -> None:
    height, width = x.shape[-2:]
    limit = torch.tensor([height, width], device=sizes.device)
    if bool((sizes < 0).any() or (sizes > limit).any()):
        raise ValueError(
            f"sizes must lie within the map's {height} x {width} cells, got {sizes.tolist()}"
        )


def transition_kind(weight: Tensor | None) -> str:
    """The kind of hidden-to-hidden transition: "identity", "diagonal" or "full".

    Args:
        weight: None, (D, C) or (D, C, C).
    """
    if weight is None:
        return "identity"
    return "diagonal" if weight.dim() == 2 else "full"


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type in which the recurrence runs: float32 at least.

    A running sum overflows float16 and stalls in bfloat16 long before it does so in float32.

    Args:
        dtype: the input's floating-point type.

    Returns:
        ``torch.float64`` for float64, else ``torch.float32``.
    """
    return torch.float64 if dtype == torch.float64 else torch.float32


def valid_mask(sizes: Tensor, height: int, width: int, device: torch.device) -> Tensor:
    """Mark the cells that lie inside each image's valid area.

    Args:
        sizes: (N, 2) integers, valid (height, width) in cells.
        height: rows of the map.
        width: columns of the map.
        device: where the mask shall live.

    Returns:
        A bool tensor of shape (N, 1, height, width).
    """
    sizes = sizes.to(device)
    rows = torch.arange(height, device=device) < sizes[:, :1]  # [N, H]
    columns = torch.arange(width, device=device) < sizes[:, 1:]  # [N, W]
    return (rows[:, :, None] & columns[:, None, :])[:, None]
