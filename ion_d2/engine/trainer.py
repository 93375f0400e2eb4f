"""Detectron2's trainer with ION's data, evaluation and checkpoints."""

from __future__ import annotations

import logging
import weakref
from typing import Any

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from detectron2.engine import DefaultTrainer, HookBase, TrainerBase
from detectron2.engine.hooks import EvalHook
from detectron2.evaluation import DatasetEvaluators
from detectron2.utils import comm
from detectron2.utils.events import EventWriter
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import setup_logger
from torch import nn
from torch.optim import Optimizer

from ..compat import TRAINER_SAVES_OPTIMIZER
from ..data.loader import RaisingLoader, ResumableLoader, deferring_errors
from ..data.mapper import IONDatasetMapper
from ..errors import IONError
from ..report.run import write_run_report
from .augmented_test import test_augmented, without_augmentation
from .averaging import EMA, AverageWeights, build_average
from .best import KeepBest, PatienceExhausted
from .checkpoint import IONCheckpointer
from .checks import check_data, check_settings
from .clipping import build_clipping_optimizer
from .determinism import make_deterministic
from .dicts import test_dicts, train_dicts
from .evaluators import build_evaluators
from .hooks import SeedEachStep, StopOnSignal
from .setup import build_model, hide_expected_tracebacks
from .stages import (
    EnterStages,
    Stage,
    build_stage_scheduler,
    check_backbone,
    follow_stages,
    read_stages,
    rest_backbone,
)
from .steps import AMPPassTrainer, PassTrainer, unwrap_distributed, wrap_distributed
from .validation_loss import validation_losses
from .wandb_writer import WandbWriter

logger = logging.getLogger(__name__)


class IONTrainer(DefaultTrainer):
    """Trains and evaluates any config with ION's keys.

    Over its base class: batches and random numbers depend on the seed and the iteration alone, so
    that a resumed run continues exactly; Ctrl-C saves before it stops; checkpoints are written
    atomically; evaluation is chosen by the dataset's type.
    """

    def __init__(self, cfg: CfgNode) -> None:
        """
        Args:
            cfg: the full config; its datasets must be registered.
        """
        if not logging.getLogger("detectron2").isEnabledFor(logging.INFO):
            setup_logger()
        PathManager.mkdirs(cfg.OUTPUT_DIR)
        # Not DefaultTrainer's, whose processes must have a GPU each and whose step is one pass.
        TrainerBase.__init__(self)
        make_deterministic(cfg)  # before a seed is drawn where there is none
        self.cfg = cfg = self.auto_scale_workers(_prepared(cfg), comm.get_world_size())
        check_settings(cfg)
        model = self.build_model(cfg)
        self.stages = read_stages(cfg)
        check_backbone(model, self.stages, cfg.MODEL.BACKBONE.FREEZE_AT)
        optimizer = self.build_optimizer(cfg, model)
        kind = AMPPassTrainer if cfg.SOLVER.AMP.ENABLED else PassTrainer
        self._trainer = kind(wrap_distributed(model), self.build_train_loader(cfg), optimizer)
        self._trainer.images_per_pass = cfg.SOLVER.IMS_PER_PASS
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.averaged = build_average(cfg, model)
        states = {"trainer": weakref.proxy(self)}
        if self.averaged is not None:
            states[EMA] = self.averaged
        self.checkpointer = IONCheckpointer(model, cfg.OUTPUT_DIR, **states)
        self.last_results: dict[str, Any] = {}
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.register_hooks(self.build_hooks())

    def build_hooks(self) -> list[HookBase | None]:
        """Detectron2's hooks; seeding and stages before, stopping on signals after them."""
        writer: DetectionCheckpointer | None = None
        if comm.is_main_process():
            writer = self.checkpointer
        first: list[HookBase] = [SeedEachStep(self.cfg.SEED, comm.get_rank())]
        if self.stages:
            first.append(EnterStages(self.stages))
        if self.averaged is not None:
            first.append(AverageWeights(self.averaged))
        return [*first, *self._evaluating(super().build_hooks()), StopOnSignal(writer)]

    def _evaluating(self, hooks: list[HookBase | None]) -> list[HookBase | None]:
        """Detectron2's hooks with our evaluation, followed by the choice of the best weights."""
        test = self.cfg.TEST
        place = next(i for i, hook in enumerate(hooks) if isinstance(hook, EvalHook))
        ours: list[HookBase] = [EvalHook(test.EVAL_PERIOD, self.evaluate)]
        if test.BEST_METRIC:
            ours.append(
                KeepBest(test.BEST_METRIC, test.PATIENCE, test.EVAL_PERIOD, self.checkpointer)
            )
        return [*hooks[:place], *ours, *hooks[place + 1 :]]

    def build_writers(self) -> list[EventWriter]:
        """Detectron2's writers, and Weights & Biases if ``WANDB_PROJECT`` names a project."""
        writers = super().build_writers()
        if self.cfg.WANDB_PROJECT:
            writers.insert(0, WandbWriter(self.cfg, resumed=lambda: self.start_iter > 0))
        return writers

    @property
    def evaluated_model(self) -> nn.Module:
        """The model with the weights that count: their moving average, if there is one."""
        return self.model if self.averaged is None else self.averaged.module

    def train(self) -> Any:
        """Train to the end, or until ``TEST.PATIENCE`` is exhausted; then report, if asked for.

        Returns:
            The last evaluation, where Detectron2's trainer returns one.
        """
        hide_expected_tracebacks()
        try:
            results = super().train()
        except PatienceExhausted as stop:
            logger.info("%s", stop)
            results = self.last_results
        self.report(self.cfg, self.evaluated_model)
        return results

    def evaluate(self) -> dict[str, Any]:
        """Evaluate the weights that count; with test-time augmentation after the training only.

        Returns:
            The results, in the main process.
        """
        cfg = self.cfg if self.iter >= self.max_iter else without_augmentation(self.cfg)
        self.last_results = self._last_eval_results = self.test(cfg, self.evaluated_model)
        return self.last_results

    def enter_stage(self, stage: Stage) -> None:
        """Train what a stage trains from now on.

        Args:
            stage: the stage.
        """
        model = unwrap_distributed(self.model)
        if rest_backbone(model, stage.freeze_at, self.optimizer):
            # A wrapper does not notice what its model trains from now on.
            self.model = wrap_distributed(model)

    def resume_or_load(self, resume: bool = True) -> None:
        """Load the last checkpoint of ``OUTPUT_DIR``, or ``MODEL.WEIGHTS``.

        Args:
            resume: whether to continue from the last checkpoint, if there is one.
        """
        super().resume_or_load(resume=resume)
        if self.averaged is not None and not self.averaged.n_averaged:
            self.averaged.module.load_state_dict(unwrap_distributed(self.model).state_dict())
        loader = self._trainer.data_loader
        if isinstance(loader, ResumableLoader):
            loader.first_iteration = self.start_iter

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps besides the weights: iteration, schedule and optimizer.

        Returns:
            The state, in the layout of Detectron2's main branch, whichever version runs.
        """
        state = super().state_dict()
        state.setdefault("_trainer", self._trainer.state_dict())
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave.

        Args:
            state_dict: the state.
        """
        super().load_state_dict(state_dict)
        if not TRAINER_SAVES_OPTIMIZER:
            self._trainer.load_state_dict(state_dict["_trainer"])

    @classmethod
    def test(cls, cfg: CfgNode, model: nn.Module, evaluators: Any = None) -> dict[str, Any]:
        """Evaluate on ``DATASETS.TEST``, with losses and test-time augmentation if asked for.

        Args:
            cfg: the full config.
            model: the model.
            evaluators: one per dataset; None for :meth:`build_evaluator`.

        Returns:
            Results by task, or by dataset and task where there are several datasets; in the main
            process.
        """
        results = super().test(cfg, model, evaluators)
        names = list(cfg.DATASETS.TEST)
        further: dict[str, dict[str, Any]] = {name: {} for name in names}
        if cfg.TEST.LOSS:
            for name in names:
                losses = validation_losses(cfg, unwrap_distributed(model), name)
                further[name]["validation"] = losses
        if cfg.TEST.AUG.ENABLED and names:
            for name, figures in test_augmented(cfg, model, cls.test).items():
                further[name].update(figures)
        for name in names if comm.is_main_process() else ():
            (results if len(names) == 1 else results[name]).update(further[name])
        return results

    @classmethod
    def report(cls, cfg: CfgNode, model: nn.Module) -> None:
        """Write ``report.html`` into ``OUTPUT_DIR``, if ``TEST.REPORT``, in the main process.

        Args:
            cfg: the full config.
            model: with the weights that were evaluated.
        """
        if cfg.TEST.REPORT and comm.is_main_process():
            write_run_report(cfg, unwrap_distributed(model))

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """Build the model, and log its structure.

        Args:
            cfg: the config.

        Returns:
            The model.

        Raises:
            IONError: the config names a part that does not exist.
        """
        model = build_model(cfg)
        logger.info("Model:\n%s", model)
        return model

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: Optimizer) -> Any:
        """Build the schedule of the learning rate.

        Args:
            cfg: the config.
            optimizer: whose learning rate it sets.

        Returns:
            The schedule.

        Raises:
            IONError: the settings make no schedule.
        """
        stages = read_stages(cfg)
        try:
            if stages:
                return build_stage_scheduler(optimizer, stages, cfg)
            return super().build_lr_scheduler(cfg, optimizer)
        except ValueError as error:
            raise IONError(f"SOLVER describes no learning-rate schedule: {error}.") from error

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> Optimizer:
        """Build the optimizer, with clipping of the whole gradient's norm.

        Args:
            cfg: the config.
            model: the model to train.

        Returns:
            The optimizer.
        """
        return build_clipping_optimizer(cfg, model)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> ResumableLoader:
        """Build the endless training batches of this process.

        Args:
            cfg: the config.

        Returns:
            An iterable of lists of mapped dicts.

        Raises:
            IONError: a setting that it cannot honour, or no images.
        """
        check_data(cfg)
        return ResumableLoader(
            train_dicts(cfg),
            IONDatasetMapper(cfg, is_train=True),
            batch_size=cfg.SOLVER.IMS_PER_BATCH // comm.get_world_size(),
            seed=_prepared(cfg).SEED,
            num_workers=cfg.DATALOADER.NUM_WORKERS,
            group_by_aspect=cfg.DATALOADER.ASPECT_RATIO_GROUPING,
            rank=comm.get_rank(),
            world_size=comm.get_world_size(),
        )

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        """Build a loader of one test dataset, one image at a time.

        Args:
            cfg: the config.
            dataset_name: a registered name.

        Returns:
            An iterable of lists with one mapped dict.
        """
        loader = build_detection_test_loader(
            dataset=test_dicts(cfg, dataset_name, with_proposals=True),
            mapper=deferring_errors(IONDatasetMapper(cfg, is_train=False)),
            num_workers=cfg.DATALOADER.NUM_WORKERS,
        )
        return RaisingLoader(loader)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluators:
        """See :func:`~ion_d2.engine.evaluators.build_evaluators`."""
        return build_evaluators(cfg, dataset_name)


def _prepared(cfg: CfgNode) -> CfgNode:
    """The config with the length of its stages, and a seed that all processes share."""
    cfg = cfg.clone()
    cfg.defrost()
    follow_stages(cfg)
    if cfg.SEED < 0:
        cfg.SEED = comm.shared_random_seed()
    cfg.freeze()
    return cfg
