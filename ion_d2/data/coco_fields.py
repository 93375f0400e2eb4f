"""Fields of a file in COCO's format: what each may hold, and how a fault is reported."""

from __future__ import annotations

import math
import numbers
import reprlib
from collections.abc import Mapping
from typing import Any, Callable, NamedTuple, Union

from ..errors import IONError

Id = Union[int, str]


class FieldFault(ValueError):
    """What is wrong with an entry of the file, as a clause."""


class Rule(NamedTuple):
    """What a field may hold."""

    wanted: str  # in words, for messages
    clean: Callable[[Any], Any]  # turns its value into the one to use, or None if it is wrong
    optional: bool = False  # whether it may be null or missing
    unique: str = ""  # what to do if two entries share the value; empty if they may


def clean_fields(entry: Mapping[str, Any], rules: Mapping[str, Rule]) -> dict[str, Any]:
    """Copy an entry with clean values in the fields that have rules.

    Raises:
        FieldFault: a field breaks its rule.
    """
    cleaned = dict(entry)
    for field, rule in rules.items():
        if rule.optional and entry.get(field) is None:
            continue
        cleaned[field] = rule.clean(entry.get(field))
        if cleaned[field] is None:
            raise FieldFault(wrong(entry, field, rule.wanted))
    return cleaned


def wrong(entry: Mapping[str, Any], field: str, wanted: str) -> str:
    """Say what an entry has in a field and what belongs there, as a clause."""
    if field not in entry:
        return f"has no {field}, which must be {wanted}"
    return f"has the {field} {reprlib.repr(entry[field])}, not {wanted}"


def fault(source: str, place: str, clause: str, advice: str = "correct or remove it") -> IONError:
    """The error about a fault at a place of a file."""
    return IONError(f"{source}: {place} {clause}; {advice}.")


def as_id(value: Any) -> Id | None:
    """An id as a whole number or text; None if it is neither."""
    if isinstance(value, str):
        return as_text(value)
    return int(value) if is_number(value) and value == int(value) else None


def as_text(value: Any) -> str | None:
    """Text as it is; None if it is blank or something else."""
    return value if isinstance(value, str) and value.strip() else None


MOST_PIXELS = 178_956_970
"""Of a picture: Pillow opens no larger one."""


def as_pixels(value: Any) -> int | None:
    """A side of a picture; None if it is no whole number from 1 on."""
    return int(value) if is_number(value) and value >= 1 and value == int(value) else None


def is_number(value: Any) -> bool:
    """Whether a value is a number in a float's range, of Python or NumPy (not true or false)."""
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    try:
        return real and math.isfinite(value)
    except OverflowError:  # a whole number
        return False
