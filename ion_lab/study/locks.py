"""Locks between processes, which the system gives back when their holders end, however they do."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import IO


def try_lock(path: Path) -> IO[str] | None:
    """Take a lock, unless somebody has it.

    Args:
        path: file that stands for it, created where it is missing.

    Returns:
        The open file that holds the lock; None if another process has it. Programs to which its
        descriptor is passed hold the lock as well, until the last of them has closed it.
    """
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock, and wait for it if somebody else has it.

    Args:
        path: file that stands for it.
    """
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
