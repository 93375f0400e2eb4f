"""Keeps float16, which ends at 65504, away from what grows beyond it."""

from __future__ import annotations

import contextlib
import functools
from typing import Any, Callable

import torch
from torch import Tensor


def autocast_dtype(device_type: str) -> torch.dtype | None:
    """What autocast computes in on a kind of device ("cuda", "cpu"); None where it is off."""
    if hasattr(torch, "get_autocast_dtype"):
        if device_type == "meta":  # which knows none
            return None
        on, dtype = torch.is_autocast_enabled(device_type), torch.get_autocast_dtype(device_type)
    elif device_type == "cpu":  # PyTorch before 2.4
        on, dtype = torch.is_autocast_cpu_enabled(), torch.get_autocast_cpu_dtype()
    else:
        on, dtype = torch.is_autocast_enabled(), torch.get_autocast_gpu_dtype()
    return dtype if on else None


def without_autocast(device_type: str) -> contextlib.AbstractContextManager:
    """A context in which autocast is off, also on devices that know none."""
    if autocast_dtype(device_type) is None:
        return contextlib.nullcontext()
    return torch.autocast(device_type, enabled=False)


def keep_range(x: Tensor) -> contextlib.AbstractContextManager:
    """A context in which no autocast rounds a float32 ``x``, which is read inside, to float16."""
    kind = x.device.type
    if x.dtype == torch.float32 and autocast_dtype(kind) == torch.float16:
        return torch.autocast(kind, enabled=False)
    return contextlib.nullcontext()


def in_float32(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Run a module's forward in float32 where autocast would run it in float16.

    The results are then float32. bfloat16, which has the range of float32, stays. The first
    argument of ``forward`` is a tensor.
    """

    @functools.wraps(forward)
    def run(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        if autocast_dtype(x.device.type) != torch.float16:
            return forward(self, x, *args, **kwargs)
        with torch.autocast(x.device.type, enabled=False):
            wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
            return forward(self, wide, *args, **kwargs)

    return run


def narrow(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Convert non-negative numbers; what float16 does not hold becomes its largest, 65504."""
    if dtype == torch.float16:
        x = x.clamp(max=65504.0)
    return x.to(dtype)


def common_dtype(x: Tensor, rois: Tensor) -> torch.dtype:
    """One type for both, as torchvision asks; 16 bits would round boxes to several pixels."""
    return torch.promote_types(torch.promote_types(x.dtype, rois.dtype), torch.float32)
