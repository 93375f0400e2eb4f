"""Config, model, trainer and predictor in a line each, for notebooks and programs.

cfg = ion_d2.get_config("configs/ion_tiny.yaml", {"DATASETS.TRAIN": ["voc:scenes:trainval"]})
ion_d2.build_trainer(cfg).train()
found = ion_d2.build_predictor(cfg, "output/ion_tiny/model_final.pth")(image)["instances"]
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.utils.env import seed_all_rng
from torch import nn

from . import plugging
from .engine import setup
from .engine.fit_config import classifier, settle_classes, settle_data
from .engine.predictor import IONPredictor
from .engine.trainer import IONTrainer
from .value_rules import changed

__all__ = ["build_model", "build_predictor", "build_trainer", "get_config"]


def get_config(
    config_file: str | os.PathLike[str],
    overrides: Mapping[str, Any] | None = None,
    *,
    plug_in: bool = False,
) -> CfgNode:
    """Read a config file, with ION's keys and the device that there is; the result is frozen.

    Args:
        config_file: a YAML file, or ``model_zoo:NAME`` for a config that Detectron2 packages, e.g.
            "model_zoo:COCO-Detection/faster_rcnn_R_50_FPN_3x.yaml".
        overrides: config key -> value, e.g. ``{"SOLVER.MAX_ITER": 100}``.
        plug_in: switch ION on before the overrides; see :func:`ion_d2.plug_in`.

    Raises:
        IONError: the file, a key or a value is wrong, or ION cannot be switched on.
    """
    pairs = [item for pair in (overrides or {}).items() for item in pair]
    adapt = plugging.plug_in if plug_in else None
    return setup.load_config(os.fspath(config_file), pairs, adapt=adapt)


def build_model(cfg: CfgNode) -> nn.Module:
    """Build the model of a config, with random weights, on its device, in training mode.

    The config stays as it is. Numbers of classes that are 0 are taken from the data.

    Raises:
        IONError: the config names a part that does not exist, or settings that it cannot honor.
    """
    cfg = cfg.clone()
    parts = [classifier(cfg), *(["SEM_SEG_HEAD"] if cfg.MODEL.SEG_REGULARIZER_ON else [])]
    if any(cfg.MODEL[part].NUM_CLASSES == 0 for part in parts):
        settle_classes(cfg)
    return setup.build_model(cfg)


def build_trainer(cfg: CfgNode, *, resume: bool = False) -> IONTrainer:
    """Build a trainer, with data, model, weights and a folder; ``train()`` trains and evaluates.

    Args:
        cfg: the config, which stays as it is. The trainer's own, with the data's number of classes,
            is its ``cfg``, and when it trains, ``config.yaml`` in ``OUTPUT_DIR``.
        resume: continue from the last checkpoint in ``OUTPUT_DIR``, if there is one.

    Raises:
        IONError: data, weights or config are not usable.
    """
    cfg = cfg.clone()
    settle_data(cfg, train=True)
    seed_all_rng(None if cfg.SEED < 0 else cfg.SEED)
    torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK  # as Detectron2's default_setup does
    trainer = IONTrainer(cfg)
    trainer.resume_or_load(resume=resume)
    return trainer


def build_predictor(
    cfg: CfgNode, weights: str | os.PathLike[str] | None = None, *, classes_file: str | None = None
) -> IONPredictor:
    """Build a predictor: a function from a picture to detections, with the ``class_names``.

    Args:
        cfg: the model's config, which stays as it is.
        weights: a checkpoint; None for ``MODEL.WEIGHTS``.
        classes_file: a text file with one class name a line; None takes them from the weights, if
            our trainer wrote these, or else from the data.

    Raises:
        IONError: there are no weights or they do not fit, or the classes cannot be found.
    """
    cfg = changed(cfg, {} if weights is None else {"MODEL.WEIGHTS": os.fspath(weights)})
    names = settle_classes(cfg, classes_file, weights=cfg.MODEL.WEIGHTS)
    return IONPredictor.from_config(cfg, names)
