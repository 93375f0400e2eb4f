"""What differs between the supported versions of Detectron2 (0.5, 0.6 and main).

Main still calls itself 0.6, so features are looked for; versions are never compared.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import detectron2
from detectron2.structures import boxes as _boxes
from detectron2.utils import comm
from torch import Tensor, distributed

if TYPE_CHECKING:
    # Whether DefaultTrainer keeps the optimizer's state (momentum) in its checkpoints. Before
    # November 2021 it did not, and a resumed run silently started with none.
    TRAINER_SAVES_OPTIMIZER: bool

# The configs that Detectron2 packages. Its own function for them needs pkg_resources, which
# setuptools 82 removed.
MODEL_ZOO = Path(detectron2.__file__).parent / "model_zoo" / "configs"

# IoU (N,) of two lists of N boxes, pair by pair; 0.5 has it by another name.
matched_iou = getattr(_boxes, "matched_pairwise_iou", None) or _boxes.matched_boxlist_iou


def __getattr__(name: str) -> Any:
    """Find TRAINER_SAVES_OPTIMIZER when it is asked for: the models need no engine."""
    if name != "TRAINER_SAVES_OPTIMIZER":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from detectron2.engine import DefaultTrainer

    return "load_state_dict" in vars(DefaultTrainer)


def create_local_process_group(processes: int) -> None:
    """Make the group of the processes on this machine, which Detectron2 asks for local ranks.

    Args:
        processes: number of them, the same on every machine.
    """
    if hasattr(comm, "create_local_process_group"):
        comm.create_local_process_group(processes)
        return
    for first in range(0, comm.get_world_size(), processes):
        ranks = list(range(first, first + processes))
        group = distributed.new_group(ranks)  # all processes make all groups
        if comm.get_rank() in ranks:
            comm._LOCAL_PROCESS_GROUP = group


def write_losses(trainer: Any, losses: dict[str, Tensor], data_time: float) -> None:
    """Write the losses of a step, in a thread where the trainer was made to; 0.5 has none.

    Args:
        trainer: the ``SimpleTrainer`` of the step.
        losses: scalars by name.
        data_time: seconds spent on waiting for the batch.
    """
    if getattr(trainer, "async_write_metrics", False):
        write = trainer._write_metrics
        trainer.concurrent_executor.submit(write, losses, data_time, iter=trainer.iter)
    else:
        trainer._write_metrics(losses, data_time)
