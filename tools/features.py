"""A detector's features, for the programs that look into them."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode
from detectron2.structures import ImageList
from torch import Tensor, nn

from ion_d2.engine.checkpoint import IONCheckpointer
from ion_d2.engine.setup import build_model
from ion_d2.modeling import ION


def build_seeded(cfg: CfgNode) -> nn.Module:
    """Build a detector for evaluation; without MODEL.WEIGHTS, its random weights are always equal.

    Raises:
        IONError: the config or the weights are wrong.
    """
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    if cfg.MODEL.WEIGHTS:
        IONCheckpointer(model).load(cfg.MODEL.WEIGHTS)
    return model


def features_of(model: nn.Module, images: ImageList) -> dict[str, Tensor]:
    """The maps (N, C, H, W) by name; a context block of ION learns of the sizes of the images."""
    return model._features(images) if isinstance(model, ION) else model.backbone(images.tensor)
