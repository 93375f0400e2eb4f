"""Training in several processes: those that torchrun starts, and the loss of one of them."""

from __future__ import annotations

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

# What torchrun sets in each of its processes; without them this is an ordinary process.
_NEEDED = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
_MEETING = ("MASTER_ADDR", "MASTER_PORT")
# What PyTorch's backends put into the messages of their errors.
_BACKENDS = ("gloo", "NCCL", "nccl")


class Place(NamedTuple):
    """Which of the processes of a training this is.

    Attributes:
        rank: its index among all.
        world_size: number of processes.
        local_rank: its index on this machine.
        local_world_size: number of processes on this machine.
    """

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int


def read_place(environ: Mapping[str, str] | None = None) -> Place | None:
    """Tell from the environment variables of torchrun which process this is.

    Args:
        environ: the variables; None for those of this process.

    Returns:
        The place; None where torchrun has not started this process.

    Raises:
        IONError: a variable is missing beside others, or has a bad value.
    """
    environ = os.environ if environ is None else environ
    if any(name not in environ for name in _NEEDED):
        return None
    for name in _MEETING:
        if not environ.get(name):
            raise IONError(
                f"RANK and WORLD_SIZE are set, but {name} is not, so that the processes cannot "
                "meet; start them with torchrun, or unset RANK for a single process."
            )
    numbers = {name: environ[name] for name in _NEEDED}
    numbers["LOCAL_WORLD_SIZE"] = environ.get("LOCAL_WORLD_SIZE", numbers["WORLD_SIZE"])
    for name, value in numbers.items():
        if not value.isdigit():
            raise IONError(f"The environment variable {name} is {value!r}; it must be a number.")
    place = Place(*(int(value) for value in numbers.values()))
    _check_place(place)
    return place


def _check_place(place: Place) -> None:
    if place.rank >= place.world_size or place.local_rank >= place.local_world_size:
        raise IONError(
            f"The environment variables name process {place.rank} of {place.world_size} (on this "
            f"machine {place.local_rank} of {place.local_world_size}); counting starts at 0, so "
            "start the processes with torchrun."
        )
    if place.world_size % place.local_world_size:
        raise IONError(
            f"WORLD_SIZE {place.world_size} is not a multiple of LOCAL_WORLD_SIZE "
            f"{place.local_world_size}; start equally many processes on each machine."
        )


def join(place: Place, cfg: CfgNode) -> None:
    """Meet the other processes: NCCL where ``MODEL.DEVICE`` is a GPU, otherwise GLOO.

    Args:
        place: which process this is.
        cfg: the full config; ``DISTRIBUTED.TIMEOUT`` is how long to wait for others.

    Raises:
        IONError: there are fewer GPUs than processes on this machine, or the others do not come.
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
            timeout=read_timeout(cfg),
        )
    except (RuntimeError, ValueError) as error:
        address = ":".join(os.environ[name] for name in _MEETING)
        raise IONError(
            f"Process {place.rank} of {place.world_size} did not meet the others at {address} "
            f"({_first_line(error)}); check MASTER_ADDR and MASTER_PORT, and that all processes "
            "are started within DISTRIBUTED.TIMEOUT."
        ) from error
    create_local_process_group(place.local_world_size)
    comm.synchronize()


def check_devices(processes: int, gpus: int) -> None:
    """Refuse more processes on a machine than it has GPUs.

    Args:
        processes: number of processes that want a GPU each.
        gpus: number of GPUs.

    Raises:
        IONError: there are too few.
    """
    if processes > gpus:
        raise IONError(
            f"torchrun starts {processes} processes on this machine, which has {gpus} GPUs; lower "
            "--nproc_per_node, or train on the CPU with MODEL.DEVICE cpu."
        )


def read_timeout(cfg: CfgNode) -> timedelta:
    """Read how long a process waits for another.

    Args:
        cfg: the full config.

    Returns:
        ``DISTRIBUTED.TIMEOUT``.

    Raises:
        IONError: it is not above 0.
    """
    seconds = cfg.DISTRIBUTED.TIMEOUT
    if seconds <= 0:
        raise IONError(f"DISTRIBUTED.TIMEOUT is {seconds}; it must be above 0 seconds.")
    return timedelta(seconds=seconds)


def leave() -> None:
    """Part from the other processes in good order, if there are any."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def is_lost_peer(error: BaseException | None) -> bool:
    """Tell whether an error means that another process has died or is silent.

    Args:
        error: what a step or an evaluation raised.

    Returns:
        Whether it comes from the connection between the processes.
    """
    connected = distributed.is_available() and distributed.is_initialized()
    text = str(error)
    return connected and isinstance(error, RuntimeError) and any(x in text for x in _BACKENDS)


def tell_lost_peer(error: BaseException) -> str:
    """Say in one sentence that another process is lost, and what to do.

    Args:
        error: what :func:`is_lost_peer` recognized.

    Returns:
        The sentence.
    """
    return (
        f"Process {comm.get_rank()} lost another process of the {comm.get_world_size()} "
        f"({_first_line(error)}); that one or its log tells why it stopped: mend it, then start "
        "all again with --resume to go on from the last checkpoint."
    )


def _first_line(error: BaseException) -> str:
    """What went wrong, without the place in the C++ sources."""
    return str(error).strip().splitlines()[0].rsplit("] ", 1)[-1].rstrip(".")
