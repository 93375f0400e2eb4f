"""The figures and pictures of a training on Weights & Biases, which reads those of TensorBoard."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any, Callable

from detectron2.config import CfgNode
from detectron2.utils.events import EventWriter, TensorboardXWriter

from ..errors import IONError


class WandbWriter(EventWriter):
    """Detectron2's TensorBoard writer, whose events wandb sends to one run.

    A resumed training goes on in the same run. wandb follows the event files that are opened after
    its start, and only a training that has begun knows whether it is resumed; so both start with
    the first figures.
    """

    def __init__(self, cfg: CfgNode, resumed: Callable[[], bool]) -> None:
        """Take the config, and what tells, once the training has begun, whether it is resumed."""
        try:
            self._wandb = importlib.import_module("wandb")
        except ImportError as error:
            raise IONError(
                f"WANDB_PROJECT is {cfg.WANDB_PROJECT!r}, but the package wandb cannot be imported "
                f"({error}); run pip install wandb, or leave WANDB_PROJECT empty."
            ) from error
        self._cfg, self._resumed = cfg, resumed
        self._run: Any = None
        self._events: EventWriter | None = None

    def write(self) -> None:
        if self._events is None:
            self._run = self._start()
            self._events = TensorboardXWriter(self._cfg.OUTPUT_DIR)
        self._events.write()

    def close(self) -> None:
        if self._events is not None:
            self._events.close()
            self._run.finish()
            self._wandb.tensorboard.unpatch()  # or a second training here could not start a run

    def _start(self) -> Any:
        path = Path(self._cfg.OUTPUT_DIR, "wandb_run.txt")
        known = path.read_text().strip() if self._resumed() and path.is_file() else None
        run = self._wandb.init(
            project=self._cfg.WANDB_PROJECT,
            name=os.path.basename(os.path.normpath(self._cfg.OUTPUT_DIR)),
            dir=self._cfg.OUTPUT_DIR,
            id=known,
            resume="allow" if known else None,
            config=self._cfg,
            sync_tensorboard=True,
        )
        path.write_text(run.id)
        return run
