"""Clipping the norm of the whole gradient, as the paper does (sec. 4.1)."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.solver import build_optimizer
from torch import nn
from torch.optim import Optimizer

# SOLVER.CLIP_GRADIENTS.CLIP_TYPE of this kind. Detectron2's own "norm" clips each parameter by
# itself.
FULL_MODEL = "full_model"


def build_clipping_optimizer(cfg: CfgNode, model: nn.Module) -> Optimizer:
    """Build Detectron2's optimizer, with ``CLIP_TYPE`` "full_model" as well.

    Args:
        cfg: the config; ``SOLVER.CLIP_GRADIENTS.CLIP_VALUE`` is the largest norm of the whole
            gradient.
        model: the model to train.

    Returns:
        The optimizer. Under mixed precision it clips the unscaled gradient.
    """
    clip = cfg.SOLVER.CLIP_GRADIENTS
    if not (clip.ENABLED and clip.CLIP_TYPE == FULL_MODEL):
        return build_optimizer(cfg, model)
    plain = cfg.clone()
    plain.defrost()
    plain.SOLVER.CLIP_GRADIENTS.ENABLED = False
    optimizer = build_optimizer(plain, model)
    optimizer.register_step_pre_hook(_Clip(clip.CLIP_VALUE, clip.NORM_TYPE))
    return optimizer


class _Clip:
    """Rescales the gradient of all of an optimizer's parameters together before its step."""

    def __init__(self, max_norm: float, norm_type: float) -> None:
        self._max_norm, self._norm_type = max_norm, norm_type

    def __call__(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, self._max_norm, norm_type=self._norm_type)
