"""Clipping the norm of the whole gradient (paper sec. 4.1), whichever trainer takes the step."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.solver import build as solver_build
from torch import nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from .errors import IONError

# SOLVER.CLIP_GRADIENTS.CLIP_TYPE of configs from before FULL_MODEL, which Detectron2 cannot read.
_OLD_CLIP_TYPE = "full_model"
# Attribute of a parameter: largest norm of its optimizer's whole gradient, and the kind of norm.
_MARK = "_whole_gradient_clip"


def settle_clipping(cfg: CfgNode) -> None:
    """Replace an older config's ``CLIP_TYPE`` "full_model" in place, also if it is frozen."""
    clip = cfg.SOLVER.CLIP_GRADIENTS
    if clip.CLIP_TYPE == _OLD_CLIP_TYPE:
        frozen = clip.is_frozen()
        clip.defrost()
        clip.CLIP_TYPE, clip.FULL_MODEL = "norm", True
        if frozen:
            clip.freeze()


def clip_whole_gradient(
    parameters: Iterable[nn.Parameter], max_norm: float, norm_type: float = 2.0
) -> None:
    """Have the whole gradient clipped before each step of an optimizer that holds one of these.

    ``max_norm`` bounds the norm over all parameters of that optimizer; Detectron2's own "norm"
    clips each parameter by itself. Under mixed precision it bounds the unscaled gradient.
    """
    for parameter in parameters:
        setattr(parameter, _MARK, (max_norm, norm_type))


def clip_as_configured(parameters: Iterable[nn.Parameter], cfg: CfgNode) -> bool:
    """Have the whole gradient clipped, if ``SOLVER.CLIP_GRADIENTS`` asks for it; returns whether.

    Raises:
        IONError: ``FULL_MODEL`` is on, but ``CLIP_TYPE`` is not "norm".
    """
    clip = cfg.SOLVER.CLIP_GRADIENTS
    if not (clip.ENABLED and clip.FULL_MODEL):
        return False
    if clip.CLIP_TYPE != "norm":
        raise IONError(
            "SOLVER.CLIP_GRADIENTS.FULL_MODEL is True, but SOLVER.CLIP_GRADIENTS.CLIP_TYPE is "
            f"{clip.CLIP_TYPE!r}; set that to 'norm', or FULL_MODEL to False."
        )
    clip_whole_gradient(parameters, clip.CLIP_VALUE, clip.NORM_TYPE)
    return True


def _clip(optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    marks = (getattr(p, _MARK) for p in parameters if hasattr(p, _MARK))
    limit = next(marks, None)
    if limit is not None:
        # A fused optimizer divides by the scale of mixed precision itself, in the step.
        scale = getattr(optimizer, "grad_scale", None)
        most = limit[0] if scale is None else limit[0] * float(scale)
        torch.nn.utils.clip_grad_norm_(parameters, most, norm_type=limit[1])


_create_clipper = solver_build._create_gradient_clipper


def _create_clipper_of_one(clip: CfgNode) -> Callable[[nn.Parameter], None]:
    """What Detectron2's optimizers call for each parameter of a step.

    Its main branch does so before PyTorch's hooks: clipped by itself, a parameter would turn the
    whole gradient elsewhere. So it is only told how the whole is clipped.
    """
    if not clip.get("FULL_MODEL"):
        return _create_clipper(clip)
    return lambda parameter: clip_whole_gradient([parameter], clip.CLIP_VALUE, clip.NORM_TYPE)


solver_build._create_gradient_clipper = _create_clipper_of_one
# PyTorch's hook for all optimizers: Detectron2's trainers build theirs without asking the model.
register_optimizer_step_pre_hook(_clip)
