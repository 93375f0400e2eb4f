"""The spatial IRNN in Triton, for GPUs: what serves it, and the way in."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
from collections.abc import Sequence

import torch
from torch import Tensor

from .layout import memory_format_of

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def unavailable(device: torch.device, dtype: torch.dtype, kind: str) -> str | None:
    """Tell why this back-end cannot serve such arguments.

    Args:
        device: where the tensors are.
        dtype: type of the map.
        kind: "identity", "diagonal" or "full".

    Returns:
        One sentence, or None if it can.
    """
    if device.type != "cuda" and not _interpreted():
        return f"The Triton back-end runs on CUDA devices, not on {device.type!r}."
    if dtype not in _DTYPES:
        return f"The Triton back-end has no kernels for {dtype}."
    if kind == "full":
        return "The Triton back-end has no kernels for the full transition."
    return _missing()


def _interpreted() -> bool:
    """Whether Triton interprets kernels instead of compiling them; that works on the CPU too."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@functools.lru_cache(maxsize=None)
def _missing() -> str | None:
    """Import Triton only when a GPU asks for it: many machines lack it, and it is slow to load."""
    try:
        language = importlib.import_module("triton.language")
    except ImportError as error:
        return f"The Triton back-end needs Triton, which cannot be imported: {error}."
    if not hasattr(language, "split"):
        return "The Triton back-end needs Triton 3.0 or newer, which PyTorch 2.4 and newer bring."
    return None


def memory_format(x: Tensor) -> torch.memory_format:
    """The layout of this back-end's results: that of ``x``."""
    return memory_format_of(x)


def forward(
    x: Tensor, weight: Tensor | None, directions: Sequence[str], sizes: Tensor | None
) -> Tensor:
    """Sweep a map. The arguments are those of :func:`ion_d2.layers.spatial_irnn`, checked before.

    Args:
        x: (N, C, H, W), any strides.
        weight: None or (D, C), floating point.
        directions: D names.
        sizes: None or (N, 2) int64 on x's device.

    Returns:
        (N, D * C, H, W) of x's type, in x's memory format.
    """
    from .triton_sweeps import sweep

    with _device_of(x):
        return sweep(x, weight, directions, sizes)


def backward(
    grad: Tensor,
    output: Tensor,
    weight: Tensor | None,
    directions: Sequence[str],
    sizes: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """Propagate a gradient through :func:`forward`.

    Args:
        grad: (N, D * C, H, W), any strides: the gradient with respect to ``output``.
        output: what :func:`forward` returned.
        weight: as it was there.
        directions: as they were there.
        sizes: as they were there. Not needed: absent cells are 0 in ``output``, as are those that
            the ReLU cut off.

    Returns:
        The gradients with respect to x, of output's type and memory format, and to the weight, of
        its type, or None. Two runs give the same bits.
    """
    from .triton_sweeps import sweep_back

    with _device_of(output):
        return sweep_back(grad, output, weight, directions)


def _device_of(tensor: Tensor) -> contextlib.AbstractContextManager:
    """Triton launches on the current device, whichever device its arguments are on."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()
