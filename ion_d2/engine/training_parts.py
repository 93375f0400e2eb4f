"""What Detectron2's trainer builds and tests, with ION's keys: the class methods of our trainer."""

from __future__ import annotations

import logging
import os
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.engine import DefaultTrainer
from detectron2.evaluation import DatasetEvaluators, print_csv_format
from detectron2.solver import LRMultiplier
from detectron2.utils import comm
from torch import nn
from torch.optim import Optimizer

from ..clipping import clip_as_configured
from ..data.catalog import ensure_registered
from ..data.label_faults import log_label_faults
from ..data.loader import ResumableLoader, SingleImageLoader
from ..data.mapper import IONDatasetMapper
from ..data.run_images import spread_evenly, test_dicts, train_dicts
from ..errors import IONError
from ..evaluation import build_evaluators, evaluation_folder
from ..value_rules import changed
from .augmented_test import check_augmentation, test_augmented
from .class_names import check_classes, classes_of, dataset_classes
from .fit_config import check_data, prepared
from .pictures import PictureEvaluator
from .setup import build_model
from .stages import build_stage_scheduler, read_stages
from .steps import unwrap_distributed
from .validation_loss import validation_losses

logger = logging.getLogger(__name__)


class IONBuilders(DefaultTrainer):
    """The parts of a training and its evaluation, from any config with ION's keys.

    They need no trainer: ``IONTrainer.test(cfg, model)`` evaluates a model as its training would.
    """

    @classmethod
    def test(cls, cfg: CfgNode, model: nn.Module, evaluators: Any = None) -> dict[str, Any]:
        """Evaluate on ``DATASETS.TEST``, with losses and test-time augmentation if asked for.

        The main process gets results by task, or by dataset and task where there are several.

        Raises:
            IONError: the classes of a dataset are not those that the model was trained on.
        """
        names = list(cfg.DATASETS.TEST)
        if cfg.TEST.AUG.ENABLED:
            check_augmentation(cfg)
        ensure_registered(names)
        for name in names:
            check_classes(classes_of(model), dataset_classes([name]), "The model")
        results = super().test(cfg, model, evaluators)
        further: dict[str, dict[str, Any]] = {name: {} for name in names}
        for name in names if cfg.TEST.LOSS else ():
            losses = validation_losses(cfg, unwrap_distributed(model), name)
            further[name]["validation"] = losses
            if losses:  # the main process has them
                logger.info("Losses on %s in csv format:", name)
                print_csv_format({"validation": losses})
        if cfg.TEST.AUG.ENABLED and names:
            for name, figures in test_augmented(cfg, model, cls.test).items():
                further[name].update(figures)
        for name in names if comm.is_main_process() else ():
            (results if len(names) == 1 else results[name]).update(further[name])
        return results

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """Build the model with :func:`ion_d2.engine.build_model`, and log its structure."""
        model = build_model(cfg)
        logger.info("Model:\n%s", model)
        return model

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: Optimizer) -> Any:
        """Build the schedule of the learning rate: that of ``SOLVER.STAGES``, or Detectron2's.

        Raises:
            IONError: the settings make no schedule.
        """
        stages = read_stages(cfg)
        try:
            if stages:
                return build_stage_scheduler(optimizer, stages, cfg)
            schedule = super().build_lr_scheduler(cfg, optimizer)
            if isinstance(schedule, LRMultiplier):
                schedule._multiplier(1.0)  # as after the last iteration, where fvcore's may fail
        except (AssertionError, IndexError, ValueError) as error:
            reason = "it has no rate at its end" if isinstance(error, IndexError) else error
            keys = ("LR_SCHEDULER_NAME", "MAX_ITER", "STEPS", "BASE_LR", "BASE_LR_END")
            told = ", ".join(f"SOLVER.{k} {cfg.SOLVER[k]}" for k in keys if k in cfg.SOLVER)
            raise IONError(
                f"There is no such learning-rate schedule ({reason}): {told}; choose another."
            ) from error
        _warn_of_low_rates(schedule, cfg)
        return schedule

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> Optimizer:
        """Build Detectron2's optimizer; see :func:`~ion_d2.clipping.clip_as_configured`.

        Raises:
            IONError: settings of the clipping contradict each other.
        """
        if clip_as_configured(model.parameters(), cfg):
            cfg = changed(cfg, {"SOLVER.CLIP_GRADIENTS.ENABLED": False})
        elif cfg.SOLVER.CLIP_GRADIENTS.FULL_MODEL:
            logger.warning(
                "Gradients are not clipped: SOLVER.CLIP_GRADIENTS.FULL_MODEL is True, but "
                "SOLVER.CLIP_GRADIENTS.ENABLED is False."
            )
        return super().build_optimizer(cfg, model)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> ResumableLoader:
        """Build the endless training batches of this process, lists of mapped dicts.

        Raises:
            IONError: a setting that it cannot honor, or no images.
        """
        check_data(cfg)
        dicts = train_dicts(cfg)
        log_label_faults(cfg, dicts)
        return ResumableLoader(
            dicts,
            IONDatasetMapper(cfg, is_train=True),
            batch_size=cfg.SOLVER.IMS_PER_BATCH // comm.get_world_size(),
            seed=prepared(cfg).SEED,
            num_workers=cfg.DATALOADER.NUM_WORKERS,
            group_by_aspect=cfg.DATALOADER.ASPECT_RATIO_GROUPING,
            rank=comm.get_rank(),
            world_size=comm.get_world_size(),
        )

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        """Build an iterable over a registered dataset, of lists with one mapped dict."""
        dicts = test_dicts(cfg, dataset_name, with_proposals=True)
        mapper = IONDatasetMapper(cfg, is_train=False)
        return SingleImageLoader(dicts, mapper, cfg.DATALOADER.NUM_WORKERS)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluators:
        """See :func:`~ion_d2.evaluation.evaluators.build_evaluators`; pictures are added."""
        evaluators = build_evaluators(cfg, dataset_name)
        if not cfg.TEST.NUM_PICTURES:
            return evaluators
        pictures = os.path.join(evaluation_folder(cfg, dataset_name), "pictures")
        dicts = spread_evenly(test_dicts(cfg, dataset_name), cfg.TEST.NUM_PICTURES)
        drawing = PictureEvaluator(dicts, MetadataCatalog.get(dataset_name), pictures)
        return DatasetEvaluators([evaluators, drawing])


def _warn_of_low_rates(schedule: Any, cfg: CfgNode) -> None:
    """Warn of a warm-up so long that the learning rate never reaches half of its value."""
    warmup, length = cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.MAX_ITER
    if not warmup or not isinstance(schedule, LRMultiplier):
        return
    sample = range(0, length, max(1, length // 1000))
    if (highest := max(schedule._multiplier(i / length) for i in sample)) < 0.5:
        logger.warning(
            "The learning rate stays below %.2g of SOLVER.BASE_LR %g: SOLVER.WARMUP_ITERS is %d, "
            "SOLVER.MAX_ITER %d; set SOLVER.WARMUP_ITERS to a tenth of that or less.",
            *(highest, cfg.SOLVER.BASE_LR, warmup, length),
        )
