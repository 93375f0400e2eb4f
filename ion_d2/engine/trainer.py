"""Detectron2's trainer with ION's data, evaluation and checkpoints."""

from __future__ import annotations

import logging
import os
import weakref
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase, TrainerBase
from detectron2.engine.hooks import EvalHook, PeriodicWriter, PreciseBN
from detectron2.utils import comm
from detectron2.utils.events import EventWriter, TensorboardXWriter
from detectron2.utils.logger import setup_logger
from torch import nn
from torch.optim import Optimizer

from ..compat import keep_latest
from ..data.loader import ResumableLoader
from ..errors import IONError
from ..files import make_folder
from ..modeling.trainer_settings import PRECISE_BN, TRAINER_KEYS
from ..value_rules import changed
from .averaging import EMA, AverageWeights, build_average
from .best import KeepBest, PatienceExhausted
from .checkpoint import IONCheckpointer
from .checkpoint_files import folder_gone
from .class_names import dataset_classes
from .determinism import make_deterministic
from .expected import verify
from .finite import tell_divergence
from .fit_config import check_settings, prepared
from .folder_lock import claim, release
from .hooks import EvaluatePeriodically, SaveBeforeEvaluation, SeedEachStep, StopOnSignal
from .precise_statistics import RepeatedPreciseBN, check_measured
from .ranges import check_ranges
from .run_folder import TRUSTED, set_aside, write_config
from .setup import hide_expected_tracebacks
from .stages import EnterStages, Stage, check_backbone, read_stages, rest_backbone
from .steps import (
    AMPPassTrainer,
    PassTrainer,
    share_buffers,
    unwrap_distributed,
    wrap_distributed,
)
from .training_parts import IONBuilders
from .writers import OpenedLater, ProgressPrinter, WandbWriter, WriteEvaluations, open_metrics

_KEPT = 1000  # values of each figure, of which the writers' windows see the last 20

logger = logging.getLogger(__name__)


class IONTrainer(IONBuilders):
    """Trains and evaluates any config with ION's keys.

    Over its base class: batches and random numbers depend on the seed and the iteration alone, so
    that a resumed run continues exactly; Ctrl-C saves before it stops; checkpoints are written
    atomically; evaluation is chosen by the dataset's type.
    """

    honored_settings: tuple[str, ...] = (*TRAINER_KEYS, PRECISE_BN)
    trusted_files: tuple[str, ...] = TRUSTED
    """Names of files that an earlier training in ``OUTPUT_DIR`` may have left; set aside."""

    def __init__(self, cfg: CfgNode) -> None:
        """Take a config whose datasets are registered."""
        if not logging.getLogger("detectron2").isEnabledFor(logging.INFO):
            setup_logger()
        make_folder(cfg.OUTPUT_DIR, "choose another OUTPUT_DIR")
        # Not DefaultTrainer's, whose processes must have a GPU each and whose step is one pass.
        TrainerBase.__init__(self)
        make_deterministic(cfg)  # before prepared() draws a seed
        self._seed_drawn = cfg.SEED < 0
        cfg = prepared(cfg)
        check_settings(cfg)
        self.cfg = cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        check_ranges(cfg)  # scaling to more processes may have made a length 0
        model = self.build_model(cfg)
        self.stages = read_stages(cfg)
        check_backbone(model, self.stages, cfg.MODEL.BACKBONE.FREEZE_AT)
        optimizer = self.build_optimizer(cfg, model)
        self._trainer = self._build_step(model, optimizer)
        check_measured(cfg, model)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.averaged = build_average(cfg, model)
        states: dict[str, Any] = {"trainer": weakref.proxy(self)}
        if self.averaged is not None:
            states[EMA] = self.averaged
        classes = dataset_classes(cfg.DATASETS.TRAIN)
        self.checkpointer = IONCheckpointer(model, cfg.OUTPUT_DIR, classes=classes, **states)
        self.last_results: dict[str, Any] = {}
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.register_hooks(self.build_hooks())

    def _build_step(self, model: nn.Module, optimizer: Optimizer) -> PassTrainer:
        cfg = self.cfg
        parts = (wrap_distributed(model), self.build_train_loader(cfg), optimizer)
        half, precision = cfg.SOLVER.AMP.ENABLED, getattr(torch, cfg.SOLVER.AMP.PRECISION)
        step = AMPPassTrainer(*parts, precision=precision) if half else PassTrainer(*parts)
        step._hooks = self._hooks  # some of them look at the gradients of a step
        step.images_per_pass = cfg.SOLVER.IMS_PER_PASS
        step.most_skipped = cfg.SOLVER.SKIP_NON_FINITE
        return step

    def build_hooks(self) -> list[HookBase | None]:
        """Detectron2's hooks; seeding and stages before, stopping on signals after them."""
        first: list[HookBase] = [SeedEachStep()]
        if self.stages:
            first.append(EnterStages(self.stages))
        if self.averaged is not None:
            first.append(AverageWeights(self.averaged))
        return [*first, *self._evaluating(super().build_hooks()), StopOnSignal(self.checkpointer)]

    def _evaluating(self, hooks: list[HookBase | None]) -> list[HookBase | None]:
        """Detectron2's hooks with our evaluation, followed by the choice of the best weights."""
        test, saver, period = self.cfg.TEST, self.checkpointer, self.cfg.TEST.EVAL_PERIOD
        saving = SaveBeforeEvaluation(saver, period)
        evaluation = EvaluatePeriodically(period, self.evaluate)
        found: list[HookBase | None] = []
        for hook in hooks:
            if isinstance(hook, EvalHook):
                found += [saving, evaluation]
                if metric := test.BEST_METRIC:
                    found.append(KeepBest(metric, test.PATIENCE, period, saver, evaluation))
            elif isinstance(hook, PreciseBN):
                found.append(RepeatedPreciseBN(hook))
            else:
                found.append(hook)
                if isinstance(hook, PeriodicWriter):  # which writes more, where both are due
                    found.append(WriteEvaluations(hook._writers, period))
        return found

    def build_writers(self) -> list[EventWriter]:
        """Detectron2's writers with a longer line, and wandb's if ``WANDB_PROJECT`` names one.

        Their files are opened when the training begins, which sets an earlier one's aside.
        """
        folder = self.cfg.OUTPUT_DIR
        metrics = OpenedLater(lambda: open_metrics(os.path.join(folder, "metrics.json")))
        events: EventWriter = OpenedLater(lambda: TensorboardXWriter(folder))
        if self.cfg.WANDB_PROJECT:
            events = WandbWriter(self.cfg, resumed=lambda: self.start_iter > 0)
        return [ProgressPrinter(self.cfg, self.max_iter), metrics, events]

    @property
    def evaluated_model(self) -> nn.Module:
        """The model with the weights to evaluate: their moving average, if there is one."""
        return self.model if self.averaged is None else self.averaged.module

    def train(self) -> dict[str, Any]:
        """Train to the end, or until ``TEST.PATIENCE`` is exhausted; returns the last results.

        ``config.yaml`` in ``OUTPUT_DIR`` is what this training has been given.

        Raises:
            IONError: the training diverged, a picture cannot be read, ``OUTPUT_DIR`` is gone, or a
                training of another process is writing to it.
        """
        hide_expected_tracebacks()
        claim(self.cfg.OUTPUT_DIR)
        try:
            if not self.start_iter and comm.is_main_process():
                set_aside(self.cfg, self.trusted_files)
            write_config(self.cfg, evaluated=False)
            # Not DefaultTrainer's, which fails on figures that it does not know.
            TrainerBase.train(self, self.start_iter, self.max_iter)
        except PatienceExhausted as stop:
            logger.info("%s", stop)
            self._end_early()
        except FloatingPointError as error:  # outside a step, which raises its own IONError
            raise tell_divergence(error, self.iter) from error
        except OSError as error:
            if isinstance(error.__context__, IONError):  # writers that closed after it met the same
                raise error.__context__ from None
            if not os.path.isdir(self.cfg.OUTPUT_DIR):
                raise folder_gone(self.cfg.OUTPUT_DIR) from error
            raise
        finally:
            release(self.cfg.OUTPUT_DIR)
        verify(self.cfg, self.last_results)
        return self.last_results

    def _end_early(self) -> None:
        """Evaluate as after the last step, where the evaluation so far was not all."""
        known = any(comm.all_gather(bool(self.last_results)))  # not where a resumed run stops again
        if self.cfg.TEST.AUG.ENABLED or not known:
            self._evaluate(self.cfg)

    def before_train(self) -> None:
        """Call the hooks; of the figures of a training, memory holds the latest alone."""
        keep_latest(self.storage, _KEPT)
        super().before_train()

    def evaluate(self) -> dict[str, Any]:
        """Evaluate, with test-time augmentation after the last step only; see :meth:`test`."""
        last = self.iter >= self.max_iter
        cfg = self.cfg if last else changed(self.cfg, {"TEST.AUG.ENABLED": False})
        return self._evaluate(cfg)

    def _evaluate(self, cfg: CfgNode) -> dict[str, Any]:
        share_buffers(self.evaluated_model)
        self.last_results = self._last_eval_results = self.test(cfg, self.evaluated_model)
        return self.last_results

    def enter_stage(self, stage: Stage) -> None:
        """From now on, train what a stage trains."""
        model = unwrap_distributed(self.model)
        if rest_backbone(model, stage.freeze_at, self.optimizer):
            # The old wrapper would go on with the parameters that were trained before.
            self.model: nn.Module = wrap_distributed(model)

    def resume_or_load(self, resume: bool = True) -> None:
        """Load the last checkpoint of ``OUTPUT_DIR`` if asked and there, else ``MODEL.WEIGHTS``.

        Raises:
            IONError: it cannot be loaded, or the processes do not find the same one.
        """
        super().resume_or_load(resume=resume)
        starts = comm.all_gather(self.start_iter)
        if len(set(starts)) > 1:
            told = f"The processes start from the iterations {', '.join(map(str, starts))}"
            raise IONError(
                f"{told}: checkpoints in OUTPUT_DIR {self.cfg.OUTPUT_DIR!r} differ; put it on "
                "a disk that all machines share, or copy last_checkpoint and its file to each."
            )
        if self.averaged is not None and not self.averaged.n_averaged:
            self.averaged.module.load_state_dict(unwrap_distributed(self.model).state_dict())
        loader = self._trainer.data_loader
        if isinstance(loader, ResumableLoader):
            loader.first_iteration, loader.seed = self.start_iter, self.cfg.SEED

    def state_dict(self) -> dict[str, Any]:
        """Iteration, seed, schedule and optimizer, in the layout of Detectron2's main branch."""
        state = {**super().state_dict(), "seed": self.cfg.SEED}
        # Hooks save before the first step and after the last, too, where iter is one too many.
        state["iteration"] = self.scheduler.last_epoch - 1
        state.setdefault("_trainer", self._trainer.state_dict())
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave; the optimizer's settings are those of the config.

        A seed that the config gives stays, too; one that was drawn is replaced.

        Raises:
            IONError: it is of a training that was longer, or of other parameters.
        """
        rates = list(self.scheduler.base_lrs)
        groups = self.optimizer.param_groups
        settings = [{k: v for k, v in group.items() if k != "params"} for group in groups]
        try:
            self._check_done(state_dict["iteration"] + 1)
            # Not DefaultTrainer's, which in 0.5 leaves the optimizer's state out.
            TrainerBase.load_state_dict(self, state_dict)
            self._trainer.load_state_dict(state_dict["_trainer"])
        except IONError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            lacks = error.args == ("_trainer",)
            reason = "it holds no optimizer, as those of Detectron2 0.5" if lacks else error
            raise IONError(
                f"{self.checkpointer.get_checkpoint_file()} is of a training with other parameters "
                f"or another optimizer ({reason}); resume with that training's config.yaml and "
                "release of Detectron2 (0.5 and 0.6 group parameters differently), or start a new "
                "one from its weights (MODEL.WEIGHTS) in another OUTPUT_DIR."
            ) from error
        # The checkpoint's rates, which the schedule would multiply, are those of the config then.
        self.scheduler.base_lrs = rates
        rates = self.scheduler.get_lr()
        for group, ours, rate in zip(self.optimizer.param_groups, settings, rates):
            group.update(ours, lr=rate)
        if self._seed_drawn and "seed" in state_dict:
            self.cfg.defrost()
            self.cfg.SEED = state_dict["seed"]
            self.cfg.freeze()
            told = "SEED is %d again, which was drawn when this training began."
            logger.info(told, self.cfg.SEED)

    def _check_done(self, done: int) -> None:
        summed = " (the sum of SOLVER.STAGES)" if self.stages else ""
        length = f"SOLVER.MAX_ITER is {self.max_iter}{summed}"
        if done > self.max_iter:
            raise IONError(
                f"{self.checkpointer.get_checkpoint_file()} has done {done} iterations, but "
                f"{length}; raise it to go on, or evaluate that file with --eval-only."
            )
        if done == self.max_iter:
            told = "%s, and %d iterations are done: nothing is left to train, only to evaluate."
            logger.warning(told, length, done)
