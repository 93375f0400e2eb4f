"""Names of files that derive from other files' names, and yet fit into a folder."""

from __future__ import annotations

import hashlib
import os

__all__ = ["MAX_BYTES", "fitting_name"]

MAX_BYTES = 255  # the most that the usual file systems take
_HASH = 8  # hexadecimal digits


def fitting_name(stem: str, *, prefix: str = "", suffix: str = "") -> str:
    """Put a file name together; one that is too long is cut and told apart by a hash.

    Args:
        stem: the part that may be cut, between two characters; any that a file name can have.
        prefix: what comes before.
        suffix: what comes after it, such as ".jpg".

    Returns:
        The name, of at most 255 bytes. Different long stems come to different names.
    """
    name = f"{prefix}{stem}{suffix}"
    if len(os.fsencode(name)) <= MAX_BYTES:
        return name
    ending = f"_{hashlib.sha256(os.fsencode(stem)).hexdigest()[:_HASH]}{suffix}"
    room = MAX_BYTES - len(os.fsencode(prefix + ending))
    return prefix + _cut(stem, room) + ending


def _cut(text: str, room: int) -> str:
    """Take as many of the first characters as have room, in bytes."""
    used = 0
    for number, sign in enumerate(text):
        used += len(os.fsencode(sign))
        if used > room:
            return text[:number]
    return text
