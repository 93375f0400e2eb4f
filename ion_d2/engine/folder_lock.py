"""A folder belongs to one training, or other program that writes there, at a time."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from detectron2.utils import comm

from ..errors import IONError

try:
    import fcntl
except ImportError:  # not a Unix
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

_claimed: dict[str, IO[str]] = {}  # by folder; a lock lasts as long as its file is open


def claim(folder: str, *, key: str = "OUTPUT_DIR", user: str = "training") -> None:
    """Keep trainings of other processes out of a folder, to :func:`release` or this one's end.

    Other programs say who the ``user`` is, which names the lock, and which ``key`` the folder.

    The operating system holds the lock and drops it when the process ends, however it ends. The
    file that stays behind blocks nobody, even if another process has the same number by now.
    Network disks pass the lock on to other machines. Workers do not inherit it. What a killed
    process has begun to save is removed.

    Of the processes of one training, which all call this, the main one holds the lock.

    Raises:
        IONError: another process is writing there; each process of this training raises it.
        OSError: the folder cannot be written.
    """
    fault: Exception | None = None
    if comm.is_main_process():
        try:
            _claim(os.path.realpath(folder), key, user)
        except (IONError, OSError) as error:
            fault = error
    told = comm.all_gather(fault and str(fault))[0]
    if told:
        raise fault or IONError(told)


def _claim(folder: str, key: str, user: str) -> None:
    if folder in _claimed:
        return
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, f"{user}.lock")
    file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 (stays open)
    try:
        _lock(file, f"{key} {folder}", key, user)
    except BaseException:
        file.close()
        raise
    file.truncate(0)
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    file.write(f"process {os.getpid()} on {socket.gethostname()} since {since}")
    file.flush()
    _claimed[folder] = file
    for left in Path(folder).glob("*.pth.tmp"):
        left.unlink()


@contextlib.contextmanager
def locked(path: str | os.PathLike[str]) -> Iterator[None]:
    """Hold the lock that a file stands for, and wait for it if somebody else has it."""
    with open(path, "a", encoding="utf-8") as file:
        if fcntl is not None:
            with contextlib.suppress(OSError):  # the disk knows no locks
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _lock(file: IO[str], place: str, key: str, user: str) -> None:
    if fcntl is None:
        return
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        file.seek(0)
        holder = file.read().strip() or "another process"
        raise IONError(
            f"{place} is in use by another {user} ({holder}); wait for its end or stop it, or "
            f"choose another {key}."
        ) from error
    except OSError as error:
        told = "%s knows no locks (%s); see to it that no other %s writes to it."
        logger.warning(told, place, error.strerror, user)


def release(folder: str) -> None:
    """Let other trainings write to a folder that :func:`claim` has claimed, if it has."""
    file = _claimed.pop(os.path.realpath(folder), None)
    if file is not None:
        file.close()
