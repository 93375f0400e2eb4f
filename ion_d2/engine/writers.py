"""What a training tells while it goes on: a line in the log, and figures for Weights & Biases."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Callable

import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.utils.events import (
    CommonMetricPrinter,
    EventWriter,
    JSONWriter,
    TensorboardXWriter,
    get_event_storage,
)

from ..errors import IONError
from .log_files import end_last_line

try:
    import resource
except ImportError:  # on Windows
    resource = None  # type: ignore[assignment]

_WINDOW = 20  # iterations, as Detectron2 smooths


class ProgressPrinter(CommonMetricPrinter):
    """Detectron2's line, with images per second and, without a GPU, the peak memory.

    The figures are put into the event storage, too, so that writers that come after this one have
    them: ``images_per_second``, of all processes together, and ``max_mem_mb``, of the GPU's memory
    that PyTorch took, or ``max_rss_mb``, of the memory of this process without its data workers.
    """

    def __init__(self, cfg: CfgNode, max_iter: int) -> None:
        super().__init__(max_iter, _WINDOW)
        self.logger = _Ending(logging.getLogger(CommonMetricPrinter.__module__), {})
        self._images = cfg.SOLVER.IMS_PER_BATCH
        self._on_gpu = cfg.MODEL.DEVICE.startswith("cuda")
        self._written = -1

    def write(self) -> None:
        """Log the line, unless the training is over or has one of this iteration already."""
        storage = get_event_storage()
        # A training that is stopped is told of twice, and Detectron2 would divide by no steps.
        if storage.iter in (self._max_iter, self._written):
            return
        self._written = storage.iter
        figures = self._memory()
        if "time" in storage.histories():  # it is not measured in the first iterations
            time = storage.history("time").median(_WINDOW)
            figures = {"images_per_second": self._images / time, **figures}
        storage.put_scalars(smoothing_hint=False, **figures)
        told = {"images_per_second": "images/s: {:.3g}", "max_rss_mb": "max_rss: {:.0f}M"}
        words = [told[name].format(value) for name, value in figures.items() if name in told]
        self.logger.end = "  ".join(words)
        super().write()

    def _memory(self) -> dict[str, float]:
        if self._on_gpu:
            return {"max_mem_mb": torch.cuda.max_memory_allocated() / 2**20}
        if resource is None:
            return {}
        unit = 1 if sys.platform == "darwin" else 1024  # bytes
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {"max_rss_mb": peak * unit / 2**20}


class _Ending(logging.LoggerAdapter):
    """The logger of Detectron2's line, which ends it with further words."""

    end = ""

    def process(self, msg: str, kwargs: Any) -> tuple[str, Any]:
        return f"{msg.rstrip()}  {self.end}", kwargs


class OpenedLater(EventWriter):
    """A writer whose files are not opened before a training begins."""

    def __init__(self, build: Callable[[], EventWriter]) -> None:
        """Take what builds the writer, and opens its files."""
        self._build = build
        self._writer: EventWriter | None = None

    def open(self) -> None:
        """Open the files, once."""
        self._writer = self._writer or self._build()

    def write(self) -> None:
        self.open()
        assert self._writer is not None
        self._writer.write()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def open_metrics(path: str) -> JSONWriter:
    """Detectron2's writer of ``metrics.json``, to which a resumed training adds lines."""
    end_last_line(path)
    return JSONWriter(path)


class WandbWriter(EventWriter):
    """Detectron2's TensorBoard writer, whose events Weights & Biases (wandb) gets in one run.

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
        self._events = OpenedLater(self._open)

    def write(self) -> None:
        self._events.write()

    def close(self) -> None:
        self._events.close()
        if self._run is not None:
            self._run.finish()
            self._wandb.tensorboard.unpatch()  # or a second training here could not start a run

    def _open(self) -> EventWriter:
        self._run = self._start()
        return TensorboardXWriter(self._cfg.OUTPUT_DIR)

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


class WriteEvaluations(HookBase):
    """Writes the figures of each evaluation.

    Detectron2 writes every 20 iterations: of several evaluations in between, it keeps the last.
    """

    def __init__(self, writers: Iterable[EventWriter], period: int) -> None:
        """Take Detectron2's writers, and the iterations between evaluations."""
        self._writers = [w for w in writers if not isinstance(w, CommonMetricPrinter)]
        self._period = period

    def before_train(self) -> None:
        """Open the files, and write an evaluation that was made up for."""
        for writer in self._writers:
            if isinstance(writer, OpenedLater):
                writer.open()
        if self.trainer.storage.latest():
            self._write()

    def after_step(self) -> None:
        if self._period and (self.trainer.iter + 1) % self._period == 0:
            self._write()

    def _write(self) -> None:
        for writer in self._writers:
            writer.write()
