"""Reading on after a fault, so that all faults of a dataset can be listed.

A training wants the first fault as an error. Within :func:`reading_on`, the readers of labels note
it and go on without what is at fault, and leave boxes as the files have them. After
:func:`skip_unreadable`, they go on without pictures that cannot be read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from ..errors import IONError
from .readable import UnreadableImageError, warn_skipped

_Item = TypeVar("_Item")
_Read = TypeVar("_Read")
_noted: ContextVar[list[IONError] | None] = ContextVar("noted", default=None)
_skipping = False


@contextmanager
def reading_on() -> Iterator[list[IONError]]:
    """Let readers go on after a fault; the faults are added to the list that this gives."""
    noted: list[IONError] = []
    token = _noted.set(noted)
    try:
        yield noted
    finally:
        _noted.reset(token)


def is_reading_on() -> bool:
    """Whether boxes are wanted as the files have them, neither clipped nor left out."""
    return _noted.get() is not None


def skip_unreadable(on: bool) -> None:
    """Say whether readers leave out a picture whose size they need and cannot read."""
    global _skipping
    _skipping = on


def refuse(error: IONError) -> None:
    """Raise an error, or only note it within :func:`reading_on`."""
    noted = _noted.get()
    if noted is None:
        raise error
    noted.append(error)


def read_each(items: Iterable[_Item], read: Callable[[_Item], _Read]) -> list[_Read]:
    """What ``read`` makes of each item; items that it refuses are left out as :func:`refuse` does.

    Raises:
        IONError: an item is refused outside of :func:`reading_on`, and not one for a picture that
            :func:`skip_unreadable` leaves out.
    """
    found = []
    for item in items:
        try:
            found.append(read(item))
        except IONError as error:
            if _skipping and isinstance(error, UnreadableImageError):
                warn_skipped(error)
            else:
                refuse(error)
    return found
