"""When a training evaluates, and what is saved before."""

from __future__ import annotations

import math
from numbers import Real
from pathlib import Path
from typing import Any, Callable

from detectron2.engine import HookBase
from detectron2.engine.hooks import EvalHook
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm

from .checkpoint import IONCheckpointer

BEFORE_EVALUATION = "model_evaluating"


class EvaluatePeriodically(EvalHook):
    """Detectron2's evaluation hook, with two faults repaired.

    It skips the last evaluation if the last step raised an error, and leaves out NaN, the AP of a
    class of which nothing was found, which would make metrics.json invalid JSON.
    """

    def __init__(self, period: int, evaluate: Callable[[], dict[str, Any]]) -> None:
        """
        Args:
            period: iterations between evaluations; 0 for one at the end.
            evaluate: gives the results, by task or by dataset and task.
        """
        super().__init__(period, lambda: _finite_figures(evaluate() or {}))

    def after_train(self) -> None:
        """Evaluate what was trained to its end."""
        # Otherwise the step at hand was not finished: an error is on its way out of it, and in
        # several processes the others wait in that step.
        if self.trainer.iter >= self.trainer.max_iter:
            self._do_eval()
        del self._func


def _finite_figures(results: dict[str, Any]) -> dict[str, Any]:
    figures = flatten_results_dict(results).items()
    return {k: v for k, v in figures if not isinstance(v, Real) or math.isfinite(v)}


class SaveBeforeEvaluation(HookBase):
    """Writes a checkpoint before each evaluation but the last, so that nothing is lost in it.

    During an evaluation, which may take minutes, signals are deferred, and a batch system may kill
    the training before. The file is replaced each time; ``--resume`` goes on from it if it is the
    latest.
    """

    def __init__(self, checkpointer: IONCheckpointer, period: int, saved_every: int) -> None:
        """
        Args:
            checkpointer: of the training; it writes in the main process only.
            period: iterations between evaluations, above 0.
            saved_every: iterations between the checkpoints that are written anyway.
        """
        self._checkpointer, self._period, self._saved_every = checkpointer, period, saved_every

    def after_step(self) -> None:
        """Save, if an evaluation comes next and no checkpoint has just been written."""
        done = self.trainer.iter + 1
        due = done % self._period == 0 and done < self.trainer.max_iter
        if due and done % self._saved_every:
            self._checkpointer.save(BEFORE_EVALUATION, iteration=done - 1)

    def after_train(self) -> None:
        """Remove the file, unless it is the one to go on from."""
        file = Path(self._checkpointer.save_dir, f"{BEFORE_EVALUATION}.pth")
        if comm.is_main_process() and Path(self._checkpointer.get_checkpoint_file()) != file:
            file.unlink(missing_ok=True)
