"""Training in several processes: those that torchrun starts, and the loss of one."""

from __future__ import annotations

import gc
import os
from collections.abc import Mapping
from datetime import timedelta
from typing import NamedTuple

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import distributed

from ..compat import create_local_process_group
from ..errors import IONError

# Set by torchrun in each of its processes; an ordinary process has none of them.
_NEEDED = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
_MEETING = ("MASTER_ADDR", "MASTER_PORT")


class Place(NamedTuple):
    """Which of the processes of a training this is: its index among all, and on this machine."""

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int


def read_place(environ: Mapping[str, str] = os.environ) -> Place | None:
    """Read from torchrun's variables which process this is; None where torchrun did not start it.

    Raises:
        IONError: a variable is missing beside others, or has a bad value.
    """
    if any(name not in environ for name in _NEEDED):
        return None
    if missing := [name for name in _MEETING if not environ.get(name)]:
        raise IONError(
            f"RANK and WORLD_SIZE are set, but {missing[0]} is not, so that the processes cannot "
            "meet; start them with torchrun, or unset RANK for a single process."
        )
    values = {name: environ[name] for name in _NEEDED}
    values["LOCAL_WORLD_SIZE"] = environ.get("LOCAL_WORLD_SIZE", values["WORLD_SIZE"])
    if all(value.isdigit() for value in values.values()):
        place = Place(*map(int, values.values()))
        inside = place.rank < place.world_size and place.local_rank < place.local_world_size
        if inside and place.world_size % place.local_world_size == 0:
            return place
    told = ", ".join(f"{name} is {value!r}" for name, value in values.items())
    raise IONError(
        f"The environment describes no process of a training: {told}; ranks count from 0, and "
        "WORLD_SIZE is a multiple of LOCAL_WORLD_SIZE. Start the processes with torchrun."
    )


def join(place: Place, cfg: CfgNode) -> None:
    """Meet the other processes: with NCCL where ``MODEL.DEVICE`` is a GPU, otherwise with gloo.

    Raises:
        IONError: this machine has too few GPUs, or the others are not there in time.
    """
    gpu = cfg.MODEL.DEVICE.startswith("cuda")
    if gpu:
        check_devices(place.local_world_size, torch.cuda.device_count())
        torch.cuda.set_device(place.local_rank)
    try:
        distributed.init_process_group(
            "nccl" if gpu else "gloo",
            init_method="env://",
            rank=place.rank,
            world_size=place.world_size,
            timeout=timedelta(seconds=cfg.DISTRIBUTED.TIMEOUT),
        )
    except (RuntimeError, ValueError) as error:
        address = ":".join(os.environ[name] for name in _MEETING)
        raise IONError(
            f"Process {place.rank} of {place.world_size} did not meet the others at {address} "
            f"({_first_line(error)}); check MASTER_ADDR and MASTER_PORT, and start all processes "
            "within DISTRIBUTED.TIMEOUT."
        ) from error
    create_local_process_group(place.local_world_size)
    comm.synchronize()


def check_devices(processes: int, gpus: int) -> None:
    """Raise ``IONError`` for more processes on a machine than it has GPUs."""
    if processes > gpus:
        raise IONError(
            f"torchrun starts {processes} processes on this machine, which has {gpus} GPUs; lower "
            "--nproc_per_node, or train on the CPU with MODEL.DEVICE cpu."
        )


def leave() -> None:
    """Part from the other processes in good order, if there are any.

    Models and trainers that were distributed should be gone.
    """
    if _connected():
        distributed.destroy_process_group()
        # gloo's threads end with the last reference to their group. One that still let go of a
        # tensor while Python ends would abort the process.
        comm._LOCAL_PROCESS_GROUP = None
        comm._get_global_gloo_group.cache_clear()
        gc.collect()


def _connected() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def is_lost_worker(error: BaseException) -> bool:
    """Whether a process that loads pictures died; PyTorch raises this wherever the program is.

    An error that such a process raised itself is told as "Caught ... in DataLoader worker".
    """
    return isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker")


def tell_lost(error: BaseException) -> str:
    """Say in one sentence what to do where a process is lost; "" for an error of another kind.

    It may load pictures, or be another of the training, which died or is silent.
    """
    named = any(backend in str(error) for backend in ("gloo", "NCCL", "nccl"))
    if named and isinstance(error, RuntimeError) and _connected():
        return (
            f"Process {comm.get_rank()} lost another process of the {comm.get_world_size()} "
            f"({_first_line(error)}); its log tells why: mend that, then start all with --resume."
        )
    if is_lost_worker(error):
        return (
            f"A process that loads pictures has ended ({_first_line(error).strip(' .')}); lower "
            "DATALOADER.NUM_WORKERS if memory ran out, then go on with --resume."
        )
    return ""


def _first_line(error: BaseException) -> str:
    """What went wrong, without the place in the C++ sources."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rsplit("] ", 1)[-1].rstrip(".")
