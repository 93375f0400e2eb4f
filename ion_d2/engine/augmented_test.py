"""Test-time augmentation: detections of resized and mirrored copies of an image, merged."""

from __future__ import annotations

import logging
import os
from typing import Any, Callable

from detectron2.config import CfgNode
from detectron2.modeling import GeneralizedRCNN, GeneralizedRCNNWithTTA
from torch import nn

from ..errors import IONError
from ..value_rules import changed
from .steps import unwrap_distributed

logger = logging.getLogger(__name__)

FOLDER = "tta"
"""Name of the folder in ``OUTPUT_DIR`` that gets its results."""


def with_augmentation(cfg: CfgNode, model: nn.Module) -> nn.Module:
    """Wrap a detector in Detectron2's test-time augmentation, with the sizes of ``TEST.AUG``.

    The wrapper has the same inputs and outputs, without segmentation. ``IONError`` for a model that
    Detectron2 has no augmentation for.
    """
    check_augmentation(cfg)
    if not isinstance(unwrap_distributed(model), GeneralizedRCNN):
        raise _refusal(f"MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE}")
    # One by one, as images are tested: padded together, copies would depend on each other's sizes.
    return GeneralizedRCNNWithTTA(cfg, model, batch_size=1).eval()


def check_augmentation(cfg: CfgNode) -> None:
    """Raise ``IONError`` for a key that contradicts ``TEST.AUG.ENABLED``, or for want of a size."""
    for key in ("KEYPOINT_ON", "LOAD_PROPOSALS"):
        if cfg.MODEL[key]:
            raise _refusal(f"MODEL.{key} True")
    if not cfg.TEST.AUG.MIN_SIZES:
        raise IONError("TEST.AUG.MIN_SIZES is empty; name at least one size in pixels.")


def _refusal(reason: str) -> IONError:
    return IONError(f"TEST.AUG.ENABLED does not work with {reason}; set it to False.")


def test_augmented(
    cfg: CfgNode, model: nn.Module, test: Callable[[CfgNode, nn.Module], dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Evaluate with test-time augmentation, into ``OUTPUT_DIR/tta``.

    ``test`` evaluates on ``DATASETS.TEST``, as ``DefaultTrainer.test`` does. The figures come by
    dataset and task, whose name ends in "_TTA".
    """
    names = cfg.DATASETS.TEST
    off = dict.fromkeys(("TEST.AUG.ENABLED", "TEST.SEM_SEG", "TEST.LOSS"), False)
    folder = os.path.join(cfg.OUTPUT_DIR, FOLDER)
    plain = changed(cfg, {**off, "TEST.NUM_PICTURES": 0, "OUTPUT_DIR": folder})
    os.makedirs(folder, exist_ok=True)
    told = "What follows is test-time augmentation (TEST.AUG), sizes %s; its results are in %s."
    logger.info(told, ", ".join(map(str, cfg.TEST.AUG.MIN_SIZES)), folder)
    results = test(plain, with_augmentation(cfg, model))
    by_dataset = results if len(names) > 1 else {names[0]: results}
    return {  # named as by Detectron2
        name: {f"{task}_TTA": figures for task, figures in tasks.items()}
        for name, tasks in by_dataset.items()
    }
