"""Names of files, and files that are either complete or not there."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Sequence
from typing import IO, Any

MAX_BYTES = 255  # of a file's name, the most that the usual file systems take
_HASH = 12  # hexadecimal digits


def replace_file(path: str, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file that at every moment holds either its old or its new content, complete.

    The content goes to a temporary file beside it, reaches the disk, and then takes the name.

    Args:
        path: the file to create or replace, in an existing folder.
        write: writes the content to the binary file that it is given.

    Raises:
        OSError: the file cannot be written; the temporary file is removed.
    """
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, fitting_name(name, suffix=".tmp"))
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


def distinct_file_names(names: Sequence[str]) -> list[str]:
    """Turn names of any kind into names of files.

    Args:
        names: such as those of datasets or classes.

    Returns:
        A name each, without spaces and slashes and no two alike.
    """
    # The end of a name tells more, and no system has names of files above 255 bytes.
    files = [re.sub(r"[^\w.-]+", "_", name)[-60:] for name in names]
    counts = [files[:place].count(file) for place, file in enumerate(files)]
    return [f"{file}_{count + 1}" if count else file for file, count in zip(files, counts)]


def fitting_name(stem: str, *, prefix: str = "", suffix: str = "", most: int = MAX_BYTES) -> str:
    """Put a file name together; one that is too long is cut and told apart by a hash.

    Args:
        stem: the part that may be cut, between two characters; any that a file name can have.
        prefix: what comes before.
        suffix: what comes after it, such as ".jpg".
        most: bytes that the name may have.

    Returns:
        The name. Different long stems come to different names.
    """
    name = f"{prefix}{stem}{suffix}"
    if len(os.fsencode(name)) <= most:
        return name
    ending = f"_{hashlib.sha256(os.fsencode(stem)).hexdigest()[:_HASH]}{suffix}"
    return prefix + _cut(stem, most - len(os.fsencode(prefix + ending))) + ending


def _cut(text: str, room: int) -> str:
    """Take as many of the first characters as have room, in bytes."""
    used = 0
    for number, sign in enumerate(text):
        used += len(os.fsencode(sign))
        if used > room:
            return text[:number]
    return text
