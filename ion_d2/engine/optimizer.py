"""Detectron2's optimizer, with clipping of the whole gradient."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.solver import build_optimizer
from torch import nn
from torch.optim import Optimizer

from ..clipping import clip_as_configured


def build_clipping_optimizer(cfg: CfgNode, model: nn.Module) -> Optimizer:
    """Build Detectron2's optimizer; see :func:`~ion_d2.clipping.clip_as_configured`.

    Raises:
        IONError: settings of the clipping contradict each other.
    """
    if clip_as_configured(model.parameters(), cfg):
        cfg = cfg.clone()
        cfg.defrost()
        cfg.SOLVER.CLIP_GRADIENTS.ENABLED = False
    return build_optimizer(cfg, model)
