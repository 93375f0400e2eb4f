"""The spatial IRNN in Triton, for GPUs: what serves it, and the way in."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from .arguments import DTYPES, memory_format_of, transition_kind


def unavailable(device: torch.device, dtype: torch.dtype, kind: str) -> str | None:
    """Why this back-end cannot serve a call, in one sentence, or None if it can."""
    if device.type != "cuda" and not _interpreted():
        return f"The Triton back-end runs on CUDA devices, not on {device.type!r}."
    if dtype not in DTYPES:
        return f"The Triton back-end has no kernels for {dtype}."
    reason = _missing()
    if reason is None and not _interpreted() and not torch.cuda.is_available():
        reason = "The Triton back-end needs a GPU, and PyTorch finds none."
    if reason is None and kind == "full":
        reason = _full_unavailable(device, dtype)
    return reason


def _interpreted() -> bool:
    """Whether Triton interprets kernels instead of compiling them; that works on the CPU too."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@functools.cache
def _missing() -> str | None:
    """Import Triton only when a GPU asks for it: many machines lack it, and it is slow to load."""
    try:
        language = importlib.import_module("triton.language")
    except ImportError as error:
        return f"The Triton back-end needs Triton, which cannot be imported: {error}."
    if not hasattr(language, "split"):
        return "The Triton back-end needs Triton 3.0 or newer, which PyTorch 2.4 and newer bring."
    return None


def _full_unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
    """The kernel for the full transition multiplies in TF32 and waits for the whole grid."""
    if dtype == torch.float64:
        return "The Triton back-end has no kernel for the full transition in float64."
    if device.type != "cuda":
        return None
    if torch.version.hip or torch.cuda.get_device_capability(device) < (8, 0):
        return (
            "The Triton back-end's full transition needs an NVIDIA GPU of capability 8.0 or newer."
        )
    options = importlib.import_module("triton.backends.nvidia.compiler").CUDAOptions
    if not hasattr(options, "launch_cooperative_grid"):
        return "The Triton back-end's full transition needs a Triton with cooperative launches."
    return None


memory_format = memory_format_of


def forward(
    x: Tensor, weight: Tensor | None, directions: Sequence[str], sizes: Tensor | None
) -> Tensor:
    """Sweep a map; see :mod:`ion_d2.layers.irnn.backends`."""
    with _launching_on(x):
        if weight is not None and transition_kind(weight) == "full":
            from .triton_full import full_forward

            return full_forward(x, weight, directions, sizes)
        from .triton_lines import elementwise_forward

        return elementwise_forward(x, weight, directions, sizes)


def backward(
    grad: Tensor,
    output: Tensor,
    weight: Tensor | None,
    directions: Sequence[str],
    sizes: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """Gradients of a sweep, the same bits in every run.

    ``sizes`` are not needed: absent cells are 0 in ``output``, as are those that the ReLU cut off.
    """
    with _launching_on(output):
        if weight is not None and transition_kind(weight) == "full":
            from .triton_full import full_backward

            return full_backward(grad, output, weight, directions)
        from .triton_lines import elementwise_backward

        return elementwise_backward(grad, output, weight, directions)


@contextlib.contextmanager
def _launching_on(tensor: Tensor) -> Iterator[None]:
    """Triton launches on the current device, whichever device its arguments are on.

    The products around the kernels keep float32 under autocast, too.
    """
    device = torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()
    with device, torch.autocast(tensor.device.type, enabled=False):
        yield
