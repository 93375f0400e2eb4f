"""What every implementation of the spatial IRNN accepts, checks and returns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Optional

import torch
from torch import Tensor


class Travel(NamedTuple):
    """The axis of (N, C, H, W) along which a direction sweeps; backwards: from its last cell on."""

    axis: int
    backwards: bool


# The directions of travel, in the order in which the paper names them (sec. 3.2). Kernels and
# TorchScript, which read no dict, take a direction's number in this table: two bits, whether it is
# vertical and whether it travels backwards.
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
    """Refuse arguments for which :func:`ion_d2.layers.spatial_irnn` is not defined.

    Raises:
        TypeError: a tensor is not of one of ``DTYPES``, or ``sizes`` is not of an integer type.
        ValueError: a shape, a device, a direction or a size does not fit.
    """
    if x.dim() != 4:
        raise ValueError(f"x must have the shape (N, C, H, W), got {tuple(x.shape)}")
    _check_dtype("x", x)
    unknown = [d for d in directions if d not in DIRECTIONS]
    if unknown or isinstance(directions, str) or not directions:
        raise ValueError(f"directions must be a sequence of {DIRECTIONS}, got {directions!r}")
    if weight is not None:
        _check_weight(x, weight, len(directions))
    if sizes is not None:
        _check_sizes(x, sizes)


def _check_dtype(name: str, tensor: Tensor) -> None:
    if tensor.dtype not in DTYPES:
        known = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
        raise TypeError(f"{name} must be a floating-point tensor ({known}), got {tensor.dtype}")


def _check_weight(x: Tensor, weight: Tensor, num_directions: int) -> None:
    channels = x.shape[1]
    diagonal = (num_directions, channels)
    full = (*diagonal, channels)
    wanted = full if weight.dim() == 3 else diagonal
    # One by one: torch.compile finds a tuple of sizes that it does not know in no other.
    if len(weight.shape) != len(wanted) or any(a != b for a, b in zip(weight.shape, wanted)):
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
    if not _is_readable(sizes):
        return
    height, width = x.shape[-2:]
    limit = torch.tensor([height, width], device=sizes.device)
    if bool((sizes < 0).any() or (sizes > limit).any()):
        raise ValueError(
            f"sizes must lie within the map's {height} x {width} cells, got {sizes.tolist()}"
        )


def _is_readable(tensor: Tensor) -> bool:
    """Whether its values can be compared: a GPU would have to be waited for.

    torch.compile, torch.export, torch.func, make_fx and FakeTensorMode know none.
    """
    if tensor.device.type != "cpu" or is_compiling() or type(tensor) is not Tensor:
        return False
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    return not wrapped and torch._C._len_torch_dispatch_stack() == 0


def is_compiling() -> bool:
    """Whether torch.compile or torch.export looks on."""
    compiling = getattr(getattr(torch, "compiler", None), "is_compiling", None)
    return compiling is not None and compiling()


def transition_kind(weight: Tensor | None) -> str:
    """Name a transition by its weight: "identity" (None), "diagonal" (D, C) or "full" (D, C, C)."""
    if weight is None:
        return "identity"
    return "diagonal" if weight.dim() == 2 else "full"


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type in which the recurrence of a map runs: float64 for float64, else float32.

    A running sum overflows float16 and stalls in bfloat16 long before it does so in float32.
    """
    return torch.float64 if dtype == torch.float64 else torch.float32


def valid_mask(sizes: Tensor, height: int, width: int, device: torch.device) -> Tensor:
    """Mark the cells inside each image's valid area, (N, 1, height, width).

    ``sizes`` (N, 2) are each image's valid height and width, the other two those of the map.
    """
    sizes = sizes.to(device)
    rows = torch.arange(height, device=device) < sizes[:, :1]  # [N, H]
    columns = torch.arange(width, device=device) < sizes[:, 1:]  # [N, W]
    return (rows[:, :, None] & columns[:, None, :])[:, None]


# TorchScript compiles this function, and does not know X | None on every Python.
def keep_valid(x: Tensor, sizes: Optional[Tensor]) -> Tensor:  # noqa: UP045
    """Set the cells of (N, C, H, W) outside each image's valid (height, width), (N, 2), to 0."""
    if sizes is None:
        return x
    return x.masked_fill(~valid_mask(sizes, x.size(2), x.size(3), x.device), 0.0)


def memory_format_of(maps: Tensor) -> torch.memory_format:
    """``torch.channels_last`` if a map is dense in that format alone, else contiguous."""
    if maps.is_contiguous() or not maps.is_contiguous(memory_format=torch.channels_last):
        return torch.contiguous_format
    return torch.channels_last


def empty_map(like: Tensor, channels: int, memory_format: torch.memory_format) -> Tensor:
    """Allocate (N, channels, H, W) of the size, type and device of another map."""
    shape = (like.shape[0], channels, *like.shape[2:])
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=memory_format)
