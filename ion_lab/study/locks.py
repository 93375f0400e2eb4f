"""Locks between processes, which the system gives back when their holders end, however they do."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO


def try_lock(path: Path) -> IO[str] | None:
    """Take the lock that a file stands for, unless another process has it (None).

    Returns:
        The open file that holds the lock. Programs to which its descriptor is passed hold the lock
        as well, until the last of them has closed it.
    """
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    except OSError:  # the disk knows no locks; as locked() does
        pass
    return file
