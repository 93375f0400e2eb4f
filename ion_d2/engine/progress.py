"""The line that is logged while a model trains."""

from __future__ import annotations

import logging
import sys
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.utils.events import CommonMetricPrinter, EventStorage, get_event_storage

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

    def write(self) -> None:
        """Log the line, unless the training is over."""
        storage = get_event_storage()
        if storage.iter == self._max_iter:
            return
        figures = {**self._speed(storage), **self._memory()}
        storage.put_scalars(smoothing_hint=False, **figures)
        told = {"images_per_second": "images/s: {:.3g}", "max_rss_mb": "max_rss: {:.0f}M"}
        words = [told[name].format(value) for name, value in figures.items() if name in told]
        self.logger.end = "  ".join(words)
        super().write()

    def _speed(self, storage: EventStorage) -> dict[str, float]:
        if "time" not in storage.histories():  # it is not measured in the first iterations
            return {}
        return {"images_per_second": self._images / storage.history("time").median(_WINDOW)}

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
