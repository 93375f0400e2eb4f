"""Files that are either complete or not there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import IO, Any


def replace_file(path: str, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file that at every moment holds either its old or its new content, complete.

    The content goes to a temporary file beside it, reaches the disk, and then takes the name.

    Args:
        path: the file to create or replace, in an existing folder.
        write: writes the content to the binary file that it is given.

    Raises:
        OSError: the file cannot be written; the temporary file is removed.
    """
    temporary = path + ".tmp"
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):  # it may never have been created
            os.remove(temporary)
        raise
