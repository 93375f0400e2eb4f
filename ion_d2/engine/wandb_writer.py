"""The figures and pictures of a training on Weights & Biases."""

from __future__ import annotations

import importlib
import os
from collections import defaultdict
from pathlib import Path
from typing import Any, Callable

import numpy as np
from detectron2.config import CfgNode
from detectron2.utils.events import EventWriter, get_event_storage

from ..errors import IONError

_RUN_FILE = "wandb_run.txt"


class WandbWriter(EventWriter):
    """Sends what Detectron2 logs (metrics, learning rate, pictures) to one run.

    A resumed training goes on in the same run. Pictures are left for the TensorBoard writer, which
    must come after this one and clears them.
    """

    def __init__(self, cfg: CfgNode, resumed: Callable[[], bool], window_size: int = 20) -> None:
        """
        Args:
            cfg: the full config, which the run shows; ``WANDB_PROJECT`` is the run's project.
            resumed: tells, once the training has begun, whether it goes on with an earlier one.
            window_size: iterations over which the median of noisy figures is taken.

        Raises:
            IONError: the package wandb is not installed.
        """
        try:
            self._wandb = importlib.import_module("wandb")
        except ImportError as error:
            raise IONError(
                f"WANDB_PROJECT is {cfg.WANDB_PROJECT!r}, but the package wandb cannot be imported "
                f"({error}); run pip install wandb, or leave WANDB_PROJECT empty."
            ) from error
        self._cfg, self._resumed, self._window_size = cfg, resumed, window_size
        self._run: Any = None
        self._last_write = -1

    def write(self) -> None:
        """Send what is new since the last call."""
        if self._run is None:
            self._run = self._start()
        storage = get_event_storage()
        rows: dict[int, dict[str, Any]] = defaultdict(dict)
        latest = storage.latest_with_smoothing_hint(self._window_size)
        for name, (value, iteration) in latest.items():
            if iteration > self._last_write:
                rows[iteration][name] = value
        for name, pixels, iteration in storage._vis_data:
            rows[iteration][name] = self._wandb.Image(np.asarray(pixels).transpose(1, 2, 0))
        for iteration in sorted(rows):
            self._run.log(rows[iteration], step=iteration)
        self._last_write = max([self._last_write, *rows])

    def close(self) -> None:
        """Finish the run."""
        if self._run is not None:
            self._run.finish()

    def _start(self) -> Any:
        path = Path(self._cfg.OUTPUT_DIR, _RUN_FILE)
        known = path.read_text().strip() if self._resumed() and path.is_file() else None
        run = self._wandb.init(
            project=self._cfg.WANDB_PROJECT,
            name=os.path.basename(os.path.normpath(self._cfg.OUTPUT_DIR)),
            dir=self._cfg.OUTPUT_DIR,
            id=known,
            resume="allow" if known else None,
            config=self._cfg,
        )
        path.write_text(run.id)
        return run
