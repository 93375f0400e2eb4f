"""Curves and figures of a training on disk, while it runs."""

from __future__ import annotations

import logging
import os
import time

from detectron2.engine import HookBase

from ion_d2.evaluation.results_file import write_text
from ion_d2.files import replace_file

from .charts import save_png
from .training_curves import read_metrics, training_plots, validation_table

LOSSES, VALIDATION = "losses.png", "validation.md"
_WRITTEN_EVERY = 20  # iterations, in which Detectron2 adds to metrics.json; evaluations apart
_PAUSE = 60.0  # seconds
_SHARE = 100  # a pause is at least so many times as long as the drawing before it

logger = logging.getLogger(__name__)


class RefreshTrainingFiles(HookBase):
    """Draws ``losses.png`` and writes ``validation.md`` at evaluations, each minute and at the end.

    They show what ``metrics.json`` holds. Where that fails, the training goes on.
    """

    def __init__(self, folder: str, period: int) -> None:
        """Take the run's folder, and the iterations between evaluations (0: none)."""
        self._folder, self._period = folder, period
        self._next = 0.0

    def after_step(self) -> None:
        """Refresh the files, if it is time."""
        done = self.trainer.iter + 1
        evaluated = bool(self._period) and done % self._period == 0
        if evaluated or (done % _WRITTEN_EVERY == 0 and time.monotonic() >= self._next):
            self._refresh()

    def after_train(self) -> None:
        """Refresh the files, however the training ended."""
        self._refresh()

    def _refresh(self) -> None:
        start = time.monotonic()
        try:
            write_training_files(self._folder)
        except Exception as error:  # of many kinds; none is worth a training
            logger.warning("%s and %s were not refreshed: %r", LOSSES, VALIDATION, error)
        end = time.monotonic()
        self._next = end + max(_PAUSE, _SHARE * (end - start))


def write_training_files(folder: str) -> None:
    """Draw a run's ``losses.png``, if it has taken a step, and write its ``validation.md``.

    A folder that is not there is not made.

    Raises:
        IONError: a file cannot be written.
        OSError: the same, or ``metrics.json`` cannot be read.
    """
    if not os.path.isdir(folder):  # removed: what must be saved there will tell
        return
    series = read_metrics(os.path.join(folder, "metrics.json"))
    if plots := training_plots(series):
        name = os.path.basename(os.path.abspath(folder))
        path = os.path.join(folder, LOSSES)
        replace_file(path, lambda file: save_png(file, name, plots, one_legend=False))
    write_text(os.path.join(folder, VALIDATION), validation_table(series))
