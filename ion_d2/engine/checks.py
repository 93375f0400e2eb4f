"""Settings of a training that contradict each other or what there is."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.utils import comm

from ..errors import IONError
from ..evaluation import check_metric
from .augmented_test import check_augmentation
from .best import check_best


def check_settings(cfg: CfgNode) -> None:
    """Refuse settings of a training that it cannot honour.

    Args:
        cfg: the full config.

    Raises:
        IONError: one of them; the message names the key.
    """
    for key, value, least in (
        ("SOLVER.MAX_ITER", cfg.SOLVER.MAX_ITER, 1),
        ("SOLVER.IMS_PER_PASS", cfg.SOLVER.IMS_PER_PASS, 0),
        ("SOLVER.CHECKPOINT_PERIOD", cfg.SOLVER.CHECKPOINT_PERIOD, 1),
        ("DATALOADER.NUM_WORKERS", cfg.DATALOADER.NUM_WORKERS, 0),
        ("TEST.NUM_PICTURES", cfg.TEST.NUM_PICTURES, 0),
        ("TEST.EVAL_PERIOD", cfg.TEST.EVAL_PERIOD, 0),
    ):
        if value < least:
            raise IONError(f"{key} is {value}; it must be at least {least}.")
    if cfg.SOLVER.STAGES and cfg.SOLVER.REFERENCE_WORLD_SIZE:
        raise IONError(
            "SOLVER.REFERENCE_WORLD_SIZE cannot scale SOLVER.STAGES; set it to 0 and adapt the "
            "stages to the number of processes."
        )
    check_best(cfg)
    check_metric(cfg.TEST.VOC_METRIC)
    if cfg.TEST.AUG.ENABLED:
        check_augmentation(cfg)
    precision = cfg.SOLVER.AMP.PRECISION
    if precision not in ("float16", "bfloat16"):
        raise IONError(f"SOLVER.AMP.PRECISION is {precision!r}; use 'float16' or 'bfloat16'.")
    if cfg.SOLVER.AMP.ENABLED and precision == "float16" and cfg.MODEL.DEVICE == "cpu":
        raise IONError(
            "SOLVER.AMP.ENABLED needs a GPU with SOLVER.AMP.PRECISION 'float16', but MODEL.DEVICE "
            "is 'cpu'; set SOLVER.AMP.PRECISION to 'bfloat16', or SOLVER.AMP.ENABLED to False."
        )


def check_data(cfg: CfgNode) -> None:
    """Refuse settings of the training batches that the loader cannot honour.

    Args:
        cfg: the full config.

    Raises:
        IONError: one of them; the message names the key.
    """
    if not cfg.DATASETS.TRAIN:
        raise IONError("DATASETS.TRAIN names no dataset to train on.")
    if cfg.DATALOADER.SAMPLER_TRAIN != "TrainingSampler":
        raise IONError(
            f"DATALOADER.SAMPLER_TRAIN is {cfg.DATALOADER.SAMPLER_TRAIN!r}; ION's trainer has "
            "'TrainingSampler' only."
        )
    world_size = comm.get_world_size()
    batch = cfg.SOLVER.IMS_PER_BATCH
    if batch < 1 or batch % world_size:
        raise IONError(
            f"SOLVER.IMS_PER_BATCH is {batch}; it must be a positive multiple of the number of "
            f"processes ({world_size})."
        )
