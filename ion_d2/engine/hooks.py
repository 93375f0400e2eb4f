"""Training hooks: seeding, evaluation, and stopping in good order on Ctrl-C."""

from __future__ import annotations

import logging
import math
import random
import signal
import threading
import time
from numbers import Real
from pathlib import Path
from typing import Any, Callable

import numpy as np
import torch
from detectron2.engine import HookBase, TrainerBase
from detectron2.engine.hooks import EvalHook
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm

from .checkpoint import IONCheckpointer

BEFORE_EVALUATION = "model_evaluating"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)

logger = logging.getLogger(__name__)


class SeedEachStep(HookBase):
    """Makes the random numbers of a step depend on SEED, the iteration and the process alone.

    A resumed run then samples the same ROIs and drops the same units as one that never stopped.
    """

    def before_step(self) -> None:
        """Seed Python's, NumPy's and torch's generators, those of the GPU included."""
        entropy = [self.trainer.cfg.SEED, comm.get_rank(), self.trainer.iter]
        state = int(np.random.SeedSequence(entropy).generate_state(1)[0])
        random.seed(state)
        np.random.seed(state)
        torch.manual_seed(state)


def is_due(done: int, period: int, trainer: TrainerBase) -> bool:
    """Whether an evaluation in the midst of the training follows so many iterations."""
    return period > 0 and done % period == 0 and done < trainer.max_iter


class EvaluatePeriodically(EvalHook):
    """Detectron2's evaluation hook, repaired: none after an error, and no NaN in metrics.json.

    NaN, the AP of a class of which nothing was found, would make the file invalid JSON.
    """

    def __init__(self, period: int, evaluate: Callable[[], dict[str, Any]]) -> None:
        """Evaluate every ``period`` iterations; 0 for once at the end."""
        super().__init__(period, lambda: _finite_figures(evaluate() or {}))
        self._made_up = False

    def before_train(self) -> None:
        """Make up for the evaluation in which the training was killed that is resumed."""
        start = self.trainer.start_iter
        if start and is_due(start, self._period, self.trainer):
            note = Path(self.trainer.cfg.OUTPUT_DIR, "last_checkpoint")
            if note.is_file() and note.read_text() == f"{BEFORE_EVALUATION}.pth":
                self.make_up(start)

    def make_up(self, done: int) -> None:
        """Evaluate before the first step, as after the last one of the ``done``; once."""
        if not self._made_up:
            self._made_up = True
            self.trainer.storage.iter = done - 1
            self._do_eval()
            self.trainer.storage.iter = done

    def after_train(self) -> None:
        """Evaluate what was trained to its end."""
        # Otherwise an error is on its way out of a step, in which other processes may wait.
        if self.trainer.iter >= self.trainer.max_iter:
            # Detectron2 has counted one too many where a resumed run had no step left to do.
            self.trainer.iter = self.trainer.storage.iter = self.trainer.max_iter
            self._do_eval()
        del self._func


def _finite_figures(results: dict[str, Any]) -> dict[str, Any]:
    figures = flatten_results_dict(results).items()
    return {k: v for k, v in figures if not isinstance(v, Real) or math.isfinite(v)}


class SaveBeforeEvaluation(HookBase):
    """Writes a checkpoint before each evaluation, so that nothing is lost in it.

    An evaluation may take minutes. A signal that comes meanwhile waits for its end, and a batch
    system may kill the training before that. The file is replaced each time; ``--resume`` goes on
    from it if it is the latest, and evaluates first. Before the last evaluation,
    ``model_final.pth`` is written instead.
    """

    def __init__(self, checkpointer: IONCheckpointer, period: int) -> None:
        """Take the iterations between evaluations."""
        self._checkpointer, self._period = checkpointer, period

    def after_step(self) -> None:
        """Save, if an evaluation comes next."""
        done = self.trainer.iter + 1
        if is_due(done, self._period, self.trainer):
            self._checkpointer.save(BEFORE_EVALUATION, iteration=done - 1)

    def after_train(self) -> None:
        """Save what was trained to its end; remove the file, unless it is to go on from."""
        # A kill, or a full disk, may have come between the checkpoints of the last step, or the
        # training was shortened to the iterations that were done.
        if self.trainer.iter >= self.trainer.max_iter:
            self._checkpointer.save_final(self.trainer.max_iter - 1)
        file = Path(self._checkpointer.save_dir, f"{BEFORE_EVALUATION}.pth")
        latest = Path(self._checkpointer.get_checkpoint_file())
        if self._period and comm.is_main_process() and latest != file:
            file.unlink(missing_ok=True)


class TrainingInterrupted(Exception):
    """Training was stopped by a signal, after the step at hand was finished and saved."""

    def __init__(self, iteration: int, number: int) -> None:
        super().__init__(f"Stopped after iteration {iteration}.")
        self.exit_status = 128 + number  # what a shell reports for a program that a signal ended


def exit_undisturbed() -> None:
    """Let no second signal meet a program that :class:`TrainingInterrupted` ends on its way out."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


class StopOnSignal(HookBase):
    """On Ctrl-C or SIGTERM, finishes the step, saves a checkpoint and stops.

    A second signal stops at once, as without this hook; but one that comes with the first is the
    same: a terminal or ``kill`` reaches all processes, and some launchers pass it on as well.
    """

    def __init__(self, checkpointer: IONCheckpointer) -> None:
        """Take what writes the checkpoint, in the main process."""
        self._checkpointer = checkpointer
        self._previous: dict[int, Any] = {}
        self._signal = 0
        self._since = 0.0  # by a clock that only goes forward

    def before_train(self) -> None:
        """Listen, in the main thread; signals of others are not Python's to handle."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._previous[number] = signal.signal(number, self._handle)

    def after_train(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def _handle(self, number: int, frame: Any) -> None:
        now = time.monotonic()
        if not self._signal:
            logger.info("Stopping after this iteration; once more to stop at once.")
            self._signal, self._since = number, now
        elif now - self._since > 0.5:  # seconds
            self.after_train()
            signal.raise_signal(number)

    def after_step(self) -> None:
        """Stop, if a signal came to any of the processes."""
        iteration = self.trainer.iter
        last = iteration + 1 >= self.trainer.max_iter  # of which the final checkpoint is written
        number = max(comm.all_gather(self._signal))
        if last and not number:
            self.after_train()  # a signal may stop the evaluation at once
        if not number:
            return
        if not last:
            self._checkpointer.save(f"model_{iteration:07d}", iteration=iteration)
        comm.synchronize()  # the first process to exit ends the others
        raise TrainingInterrupted(iteration, number)
