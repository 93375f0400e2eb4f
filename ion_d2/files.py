"""Names of files, and files that are either complete or not there."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import IO, Any

from .errors import IONError

_MAX_BYTES = 255  # of a file's name, the most that the usual file systems take


def replace_file(path: str, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file that at every moment holds either its old or its new content, complete.

    The content goes to a temporary file beside it, reaches the disk, and then takes the name.
    A link is replaced, what it leads to stays; into a pipe or a device, the content is written.

    Args:
        path: in an existing folder.
        write: writes the content to the binary file that it is given.

    Raises:
        OSError: the file cannot be written; the temporary file is removed.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        with open(path, "wb") as file:
            write(file)
        return
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


def write_result(path: str, write: Callable[[IO[bytes]], Any], advice: str) -> None:
    """Write a file as :func:`replace_file` does; its folder is made if need be.

    Raises:
        IONError: the file cannot be written; the message ends with the advice.
    """
    try:
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        replace_file(path, write)
    except OSError as error:
        raise IONError(
            f"{path} cannot be written ({error.strerror or error}); {advice}."
        ) from error


def make_folder(path: str | os.PathLike[str], advice: str) -> None:
    """Make a folder with its parents, unless it is there.

    Raises:
        IONError: it cannot be made; the message ends with the advice.
    """
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise IONError(
            f"The folder {os.fspath(path)} cannot be made ({error.strerror}); {advice}."
        ) from error


def distinct_file_names(names: Sequence[str]) -> list[str]:
    """Names of visible files for e.g. datasets or classes: no spaces or slashes, no two alike."""
    # The end of a long name tells more than its start, but may begin with a dot.
    files = [re.sub(r"^\.+", "_", re.sub(r"[^\w.-]+", "_", name)[-60:]) for name in names]
    numbers: Counter[str] = Counter()
    taken: dict[str, None] = {}  # in the order of the names
    for file in files:
        free = file
        while free in taken:
            numbers[file] += 1
            free = f"{file}_{numbers[file] + 1}"
        taken[free] = None
    return list(taken)


def fitting_name(stem: str, *, prefix: str = "", suffix: str = "", most: int = _MAX_BYTES) -> str:
    """Put a file name together that has at most so many bytes.

    A stem that is too long is cut, and ends in a hash of the whole so that names stay different.
    """
    name = f"{prefix}{stem}{suffix}"
    if len(os.fsencode(name)) <= most:
        return name
    ending = f"_{hashlib.sha256(os.fsencode(stem)).hexdigest()[:12]}{suffix}"
    room = most - len(os.fsencode(prefix + ending))
    used = accumulate(len(os.fsencode(sign)) for sign in stem)  # whole characters only
    return prefix + stem[: sum(size <= room for size in used)] + ending
