"""What differs between the supported versions of Detectron2 (0.5, 0.6 and main).

Main still calls itself 0.6, so features are looked for; versions are never compared.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import detectron2
from detectron2.structures import boxes as _boxes
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from fvcore.common.history_buffer import HistoryBuffer
from torch import Tensor, distributed

# The packaged configs; Detectron2's function for them needs pkg_resources, gone in setuptools 82.
MODEL_ZOO = Path(detectron2.__file__).parent / "model_zoo" / "configs"

# IoU (N,) of two lists of N boxes, pair by pair; 0.5 has it by another name.
matched_iou = getattr(_boxes, "matched_pairwise_iou", None) or _boxes.matched_boxlist_iou


def create_local_process_group(processes: int) -> None:
    """Group the processes of each machine, equally many on all, for Detectron2's local ranks."""
    if hasattr(comm, "create_local_process_group"):
        comm.create_local_process_group(processes)
        return
    for first in range(0, comm.get_world_size(), processes):
        ranks = list(range(first, first + processes))
        group = distributed.new_group(ranks)  # all processes make all groups
        if comm.get_rank() in ranks:
            comm._LOCAL_PROCESS_GROUP = group


def keep_latest(storage: EventStorage, values: int) -> None:
    """Have a new event storage keep so many values of a figure; it would keep a million of each."""
    storage._history.default_factory = functools.partial(HistoryBuffer, values)


def write_losses(trainer: Any, losses: dict[str, Tensor], data_time: float) -> None:
    """Write a ``SimpleTrainer``'s losses and its seconds of waiting for the batch.

    That is done in a thread if the trainer wants so; 0.5 knows no such thread.
    """
    if getattr(trainer, "async_write_metrics", False):
        write = trainer._write_metrics
        trainer.concurrent_executor.submit(write, losses, data_time, iter=trainer.iter)
    else:
        trainer._write_metrics(losses, data_time)
