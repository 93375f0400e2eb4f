"""The losses on test sets, as a figure of the evaluation."""

from __future__ import annotations

import contextlib
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.roi_heads import BaseKeypointRCNNHead, BaseMaskRCNNHead
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import nn

from ..data.loader import SingleImageLoader
from ..data.mapper import IONDatasetMapper
from ..data.run_images import test_dicts
from ..errors import IONError
from ..value_rules import changed

# Parts of the detector, and heads in them, that return losses in training, predictions otherwise.
_PARTS = ("proposal_generator", "roi_heads", "sem_seg_head")
_HEADS = (BaseMaskRCNNHead, BaseKeypointRCNNHead)


def validation_losses(cfg: CfgNode, model: nn.Module, dataset_name: str) -> dict[str, float]:
    """Compute the mean losses over the images of a test set.

    The images are those of the evaluation: resized, not augmented. Nothing is dropped and no
    statistics are measured; which regions are sampled depends on the image alone, so that the
    figure is comparable between evaluations and does not depend on the number of processes.

    Returns:
        The mean of each loss, and their sum as "total_loss", in the main process; {} elsewhere.

    Raises:
        IONError: the dataset has no boxes, or the model is of another family.
    """
    if not isinstance(model, GeneralizedRCNN):
        architecture = f"MODEL.META_ARCHITECTURE {type(model).__name__}"
        raise IONError(f"TEST.LOSS does not work with {architecture}; set it to False.")
    dicts = test_dicts(cfg, dataset_name, with_proposals=True)
    mapper = IONDatasetMapper(_as_in_evaluation(cfg), is_train=True)
    loader = SingleImageLoader(dicts, mapper, cfg.DATALOADER.NUM_WORKERS)
    with computing_losses(model):
        sums, count = _sum_losses(model, loader, dataset_name)
    parts = comm.gather((sums, count), dst=0)
    if not comm.is_main_process():
        return {}
    images = sum(part[1] for part in parts)
    names = sorted({name for part in parts for name in part[0]})
    means = {name: sum(part[0].get(name, 0.0) for part in parts) / images for name in names}
    return {"total_loss": sum(means.values()), **means}


@contextlib.contextmanager
def computing_losses(model: GeneralizedRCNN) -> Iterator[None]:
    """Let a detector return losses while all its layers behave as in evaluation.

    Only the modules that choose between losses and predictions are told to train, not dropout,
    normalization and others.
    """
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    parts = (getattr(model, name, None) for name in _PARTS)
    heads = (module for module in model.modules() if isinstance(module, _HEADS))
    for module in (model, *parts, *heads):
        if module is not None:
            module.training = True
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


@torch.no_grad()
def _sum_losses(
    model: nn.Module, batches: Iterable[list[dict[str, Any]]], dataset_name: str
) -> tuple[dict[str, float], int]:
    sums: dict[str, float] = defaultdict(float)
    count = 0
    # A storage of its own, at an iteration at which VIS_PERIOD above 1 draws nothing.
    with torch.random.fork_rng(), EventStorage(start_iter=1):
        for (x,) in batches:
            if "instances" not in x:
                fault = f"{dataset_name} has none for {x['file_name']}"
                raise IONError(f"TEST.LOSS needs boxes, but {fault}; set it to False.")
            torch.manual_seed(zlib.crc32(str(x["image_id"]).encode()))
            try:
                losses = model([x])
            except FloatingPointError as error:  # Detectron2's, of proposals in training mode
                raise IONError(
                    f"TEST.LOSS: the model gives NaN or infinity for {x['file_name']}; its "
                    "training has diverged: lower SOLVER.BASE_LR."
                ) from error
            for name, value in losses.items():
                sums[name] += float(value)
            count += 1
    return dict(sums), count


def _as_in_evaluation(cfg: CfgNode) -> CfgNode:
    """A config whose training pictures look like those of the evaluation."""
    data, pictures = cfg.DATASETS, cfg.INPUT
    values = {
        "DATASETS.TRAIN": data.TEST,  # where Detectron2 looks for names of keypoints
        "DATALOADER.FILTER_EMPTY_ANNOTATIONS": False,
        "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TRAIN": data.PRECOMPUTED_PROPOSAL_TOPK_TEST,
        "INPUT.CROP.ENABLED": False,
        "INPUT.RANDOM_FLIP": "none",
        "INPUT.MIN_SIZE_TRAIN_SAMPLING": "choice",
        "INPUT.MIN_SIZE_TRAIN": (pictures.MIN_SIZE_TEST,),
        "INPUT.MAX_SIZE_TRAIN": pictures.MAX_SIZE_TEST,
    }
    return changed(cfg, values)
