"""Trainings that diverge: losses, gradients and weights that are NaN or infinite are told at once.

What finds one raises ``FloatingPointError``, as Detectron2's own parts do.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from detectron2.utils import comm
from torch import Tensor, distributed, nn
from torch.optim import Optimizer

from ..errors import IONError

_SHOWN = 4  # pictures in a message
_ELSEWHERE = "a loss of another process is not finite; its log names the pictures"
# Scaling of the loss in mixed precision begins at 2**16 and is halved after a step whose gradients
# are not finite. So far down, no scale will help.
_SMALLEST_SCALE = 2.0**-24


class NotFiniteError(FloatingPointError):
    """What all processes of a training find in the same step."""


def check_losses(losses: Mapping[str, Tensor]) -> None:
    """Look at the detached losses of a step, in all processes together, so that all stop."""
    total: Any = sum(losses.values())
    finite = torch.isfinite(total).all().float()
    if comm.get_world_size() > 1:
        distributed.all_reduce(finite, distributed.ReduceOp.MIN)
    if finite:
        return
    bad = [f"{name} is {float(v)}" for name, v in losses.items() if not torch.isfinite(v).all()]
    raise NotFiniteError(", ".join(bad) or _ELSEWHERE)


def check_gradients(optimizer: Optimizer) -> None:
    """Look at the gradients, once processes have exchanged them, before they reach the weights."""
    parameters = (p for group in optimizer.param_groups for p in group["params"])
    gradients = (p.grad for p in parameters if p.grad is not None)
    _check_sums(gradients, "the losses are finite, a gradient is not")


def check_weights(model: nn.Module) -> None:
    """Look at the weights before a checkpoint takes the place of an earlier one."""
    _check_sums((p.detach() for p in model.parameters()), "weights of the model are not finite")


def check_scale(scale: float) -> None:
    """Look at mixed precision's factor of the loss: one so small that all steps are skipped."""
    if scale < _SMALLEST_SCALE:
        raise FloatingPointError("gradients have not been finite for many steps, all skipped")


def _check_sums(tensors: Iterable[Tensor], fault: str) -> None:
    # A sum is not finite where an addend is not. One question to the device for all of them.
    sums = (x.sum(dtype=torch.promote_types(x.dtype, torch.float32)) for x in tensors)
    finite = [torch.isfinite(value) for value in sums]
    if finite and not torch.stack(finite).all():
        raise NotFiniteError(fault)


def describe(error: FloatingPointError, images: Iterable[dict[str, Any]] = ()) -> str:
    """What was not finite, and the pictures of the step in this process, its input dicts."""
    names = [os.path.basename(str(x["file_name"])) for x in images if "file_name" in x]
    fault = " ".join(str(error).split()).rstrip(".")
    if not names or str(error) == _ELSEWHERE:
        return fault
    more = ", ..." if len(names) > _SHOWN else ""
    return f"{fault}; pictures: {', '.join(names[:_SHOWN])}{more}"


def tell_divergence(
    error: FloatingPointError,
    iteration: int,
    images: Iterable[dict[str, Any]] = (),
    rate: float | None = None,
    skipped: int = 0,
) -> IONError:
    """Turn what was raised into an error that says where it happened and what to do.

    Within a step, ``images`` are its input dicts in this process, ``rate`` its learning rate, and
    ``skipped`` the steps that were left out before.
    """
    fault = describe(error, images)
    told = "" if rate is None else f" (the rate was {rate:g})"
    more = f"more than the {skipped} before it" if skipped else "a few such steps"
    return IONError(
        f"The loss became NaN or infinite in iteration {iteration} ({fault}): lower SOLVER.BASE_LR"
        f"{told}, warm up longer (SOLVER.WARMUP_ITERS), clip (SOLVER.CLIP_GRADIENTS), look at the "
        f"boxes of the pictures, or skip {more} (SOLVER.SKIP_NON_FINITE). Earlier "
        "checkpoints are intact."
    )
