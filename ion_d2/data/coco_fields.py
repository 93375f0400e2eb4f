"""Single fields of a file in COCO's format, and how a fault of one is told."""

from __future__ import annotations

import math
import numbers
import reprlib
from typing import Any

from ion_d2.errors import IONError


def fault(source: str, place: str, text: str, advice: str = "correct or remove it") -> IONError:
    """Put together the sentence about a fault.

    Args:
        source: the file.
        place: where in the file.
        text: the fault, as "has the id None, ...".
        advice: what to do.

    Returns:
        The error, to be raised.
    """
    return IONError(f"{source}: {place} {text}; {advice}.")


def wrong(entry: dict[str, Any], field: str, wanted: str) -> str:
    """Say what an entry has in a field, and what it should have.

    Args:
        entry: of the file.
        field: of the entry.
        wanted: what belongs there, as "four numbers".

    Returns:
        A clause, as "has the bbox [1, 2], not four numbers", long values shortened.
    """
    if field not in entry:
        return f"has no {field}, which must be {wanted}"
    return f"has the {field} {reprlib.repr(entry[field])}, not {wanted}"


def as_id(value: Any) -> int | str | None:
    """Read an id.

    Args:
        value: of a JSON file.

    Returns:
        A whole number as int, text as it is; None for anything else.
    """
    if isinstance(value, str):
        return value if value.strip() else None
    return int(value) if is_number(value) and value == int(value) else None


def is_number(value: Any) -> bool:
    """Whether a value is a finite number, of Python or NumPy (and not true or false)."""
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return real and -math.inf < value < math.inf  # isfinite fails on int beyond float's range
