"""Result files that are either complete or not there."""

from __future__ import annotations

import json
import math
from typing import Any

from ..files import write_result


def write_json(path: str, content: Any, indent: int | None = None) -> None:
    """Write a JSON file, see :func:`write_text`; NaN and infinity are written as null."""
    write_text(path, json.dumps(_finite_or_none(content), indent=indent, allow_nan=False))


def write_text(path: str, text: str) -> None:
    """Write a text file in UTF-8; see :func:`~ion_d2.files.write_result`, also for errors.

    Bytes of a file's name that are no text are written as ``\\udcXX``.
    """
    advice = "make room or choose another folder (OUTPUT_DIR of a run)"
    data = text.encode(errors="backslashreplace")
    write_result(path, lambda file: file.write(data), advice)


def _finite_or_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite_or_none(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite_or_none(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
