"""Keeping the best checkpoint by any metric, and stopping when it no longer improves."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm

from ..errors import IONError
from ..evaluation.results_file import write_json
from .checkpoint import IONCheckpointer
from .hooks import EvaluatePeriodically, is_due

BEST = "model_best"
# What the metric was after each evaluation so far: in a file of its own, since checkpoints are
# written before the evaluation of the same iteration.
HISTORY = "evaluations.json"

logger = logging.getLogger(__name__)


class PatienceExhausted(Exception):
    """Training was stopped, in good order, because the metric did not improve any more."""


def check_best(cfg: CfgNode) -> None:
    """Raise ``IONError`` for settings of best checkpoint and early stopping without effect."""
    metric, patience = cfg.TEST.BEST_METRIC, cfg.TEST.PATIENCE
    fault = f"TEST.PATIENCE is {patience}, but"
    if patience and not metric:
        raise IONError(f"{fault} no metric is watched; set TEST.BEST_METRIC, e.g. to bbox/AP50.")
    if patience and not cfg.TEST.EVAL_PERIOD:
        raise IONError(f"{fault} TEST.EVAL_PERIOD is 0; set it to a number of iterations.")
    if metric and not cfg.DATASETS.TEST:
        raise IONError(f"TEST.BEST_METRIC is {metric!r}, but DATASETS.TEST names no dataset.")


class KeepBest(HookBase):
    """Writes ``model_best.pth`` whenever an evaluation is better than all before it.

    The file holds the weights that were evaluated, without the state of the training. A resumed run
    knows the evaluations before it.

    Detectron2's BestCheckpointer (not in 0.5) marks its best file as the last checkpoint, from
    which ``--resume`` would go on; it forgets the best on a resume; and where an average was
    evaluated it saves the trained weights instead.
    """

    def __init__(
        self,
        metric: str,
        patience: int,
        period: int,
        checkpointer: IONCheckpointer,
        evaluation: EvaluatePeriodically,
    ) -> None:
        """
        Args:
            metric: its name in ``metrics.json``, e.g. "bbox/AP50"; lower is better in
                "validation/...", whose figures are losses.
            patience: evaluations in a row without improvement that stop the training; 0: never.
            period: iterations between evaluations; 0 for one at the end.
            checkpointer: of the training; it writes in the main process only.
            evaluation: the hook that makes the evaluations, before this one.
        """
        self._metric, self._patience, self._period = metric, patience, period
        self._sign = -1 if metric.split("/")[-2:-1] == ["validation"] else 1
        self._checkpointer, self._evaluation = checkpointer, evaluation
        self._path = os.path.join(checkpointer.save_dir, HISTORY)
        self._history: list[dict[str, Any]] = []

    def before_train(self) -> None:
        """Recall the evaluations of a run that is resumed, and make up for one that it missed."""
        start = self.trainer.start_iter
        self._history = comm.all_gather(self._read(start))[0]
        if start and is_due(start, self._period, self.trainer) and not self._is_judged(start):
            self._evaluation.make_up(start)
            self._judge(start)
        self._stop_if_exhausted(start)

    def after_step(self) -> None:
        """Judge an evaluation in the midst of the training.

        Raises:
            PatienceExhausted: it was one too many without improvement.
            IONError: it did not give the metric.
        """
        done = self.trainer.iter + 1
        if is_due(done, self._period, self.trainer):
            self._judge(done)
            self._stop_if_exhausted(done)

    def after_train(self) -> None:
        end = self.trainer.max_iter
        if self.trainer.iter >= end and not self._is_judged(end):
            self._judge(end)

    def _is_judged(self, done: int) -> bool:
        return any(entry["iteration"] == done for entry in self._history)

    def _read(self, start: int) -> list[dict[str, Any]]:
        if not (comm.is_main_process() and os.path.isfile(self._path)):
            return []
        try:
            with open(self._path, encoding="utf-8") as file:
                entries = json.load(file)
            known = [entry for entry in entries if entry["iteration"] <= start]
            others = {entry["metric"] for entry in known} - {self._metric}
            # JSON has no NaN; in its place there is null.
            known = [{**e, "value": math.nan if e["value"] is None else e["value"]} for e in known]
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise IONError(
                f"{self._path} cannot be read ({error!r}), which holds the evaluations so far; "
                "delete it to compare with those from now on."
            ) from error
        if others:
            raise IONError(
                f"TEST.BEST_METRIC is {self._metric!r}, but {self._path} and {BEST}.pth are of "
                f"{', '.join(sorted(others))}; set it to that, or move both files away."
            )
        return known

    def _judge(self, done: int) -> None:
        """Note the latest evaluation and keep its weights if they are the best, in one process."""
        problem = self._note(done) if comm.is_main_process() else ""
        self._history, problem = comm.all_gather((self._history, problem))[0]
        if problem:
            raise IONError(problem)

    def _note(self, done: int) -> str:
        results = self.trainer.last_results
        figures = flatten_results_dict(results)
        if self._metric not in figures and _found_something(results, self._metric):
            self._checkpointer.save(f"model_{done - 1:07d}", iteration=done - 1)
            return (
                f"TEST.BEST_METRIC is {self._metric!r}, which the evaluation does not give; choose "
                f"one of {', '.join(figures)}, and go on with --resume."
            )
        value = float(figures.get(self._metric, math.nan))
        entry = {"metric": self._metric, "iteration": done, "value": value}
        self._history = [*self._history, entry]
        if self._best() is entry:
            logger.info("%s is %.4f, the best so far: %s.pth", self._metric, value, BEST)
            self._checkpointer.save_weights(
                BEST, self.trainer.evaluated_model, iteration=done - 1, **{self._metric: value}
            )
        write_json(self._path, self._history, indent=1)
        return ""

    def _best(self) -> dict[str, Any] | None:
        """The first of the best evaluations, if any gave a figure."""
        entries = [entry for entry in self._history if math.isfinite(entry["value"])]
        return max(entries, key=lambda entry: self._sign * entry["value"], default=None)

    def _stop_if_exhausted(self, done: int) -> None:
        best = self._best()
        if not self._patience or best is None:
            return
        since = len(self._history) - 1 - self._history.index(best)
        if since < self._patience:
            return
        self._checkpointer.save_final(done - 1)
        comm.synchronize()
        raise PatienceExhausted(
            f"Stopped after iteration {done - 1}: {self._metric} has not improved on "
            f"{best['value']:.4f} in {since} evaluations (TEST.PATIENCE)."
        )


def _found_something(results: Mapping[str, Any], metric: str) -> bool:
    """Whether the evaluation that the metric is of has figures.

    Where a model finds nothing yet, all of them are NaN, and those of the classes may be missing.
    """
    for name, part in results.items():  # by dataset where there are several, then by task
        if isinstance(part, Mapping) and metric.startswith(f"{name}/"):
            return _found_something(part, metric[len(name) + 1 :])
    return any(math.isfinite(value) for value in flatten_results_dict(results).values())
