"""Settings of a training that contradict each other or what there is."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.utils import comm

from ..errors import IONError
from ..evaluation import check_metric
from .augmented_test import check_augmentation
from .best import check_best
from .ranges import check_ranges


def check_settings(cfg: CfgNode) -> None:
    """Refuse settings of a training that it cannot honor.

    Args:
        cfg: the full config.

    Raises:
        IONError: one of them; the message names the key.
    """
    check_ranges(cfg)
    solver = cfg.SOLVER
    if solver.REFERENCE_WORLD_SIZE and solver.IMS_PER_BATCH % solver.REFERENCE_WORLD_SIZE:
        raise IONError(
            f"SOLVER.IMS_PER_BATCH is {solver.IMS_PER_BATCH}; it must be a multiple of "
            f"SOLVER.REFERENCE_WORLD_SIZE {solver.REFERENCE_WORLD_SIZE}, or that be 0."
        )
    if cfg.SOLVER.STAGES and cfg.SOLVER.REFERENCE_WORLD_SIZE:
        raise IONError(
            "SOLVER.REFERENCE_WORLD_SIZE cannot scale SOLVER.STAGES; set it to 0 and adapt the "
            "stages to the number of processes."
        )
    check_best(cfg)
    check_metric(cfg.TEST.VOC_METRIC)
    if cfg.TEST.AUG.ENABLED:
        check_augmentation(cfg)
    half = cfg.SOLVER.AMP.ENABLED and cfg.SOLVER.AMP.PRECISION == "float16"
    if half and cfg.MODEL.DEVICE == "cpu":
        raise IONError(
            "SOLVER.AMP.ENABLED needs a GPU with SOLVER.AMP.PRECISION 'float16', but MODEL.DEVICE "
            "is 'cpu'; set SOLVER.AMP.PRECISION to 'bfloat16', or SOLVER.AMP.ENABLED to False."
        )


def check_data(cfg: CfgNode) -> None:
    """Refuse settings of the training batches that the loader cannot honor.

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
    if batch % world_size:
        raise IONError(
            f"SOLVER.IMS_PER_BATCH is {batch}; it must be a multiple of the number of processes "
            f"({world_size})."
        )
