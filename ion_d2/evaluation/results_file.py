"""Result files that are either complete or not there."""

from __future__ import annotations

import json
import math
import os
from typing import Any

from ion_d2.errors import IONError
from ion_d2.files import replace_file


def write_json(path: str, content: Any, indent: int | None = None) -> None:
    """Write a JSON file, see :func:`write_text`; NaN and infinity are written as null."""
    write_text(path, json.dumps(_finite_or_none(content), indent=indent, allow_nan=False))


def write_text(path: str, text: str) -> None:
    """Write a text file in UTF-8, creating its folder.

    A reader sees the old file or the whole new one, never half of it.

    Raises:
        IONError: the file cannot be written.
    """
    try:
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        replace_file(path, lambda file: file.write(text.encode()))
    except OSError as error:
        raise IONError(
            f"Cannot write the result file {path} ({error.strerror}): make room or choose another "
            "folder (OUTPUT_DIR of a run)."
        ) from error


def _finite_or_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite_or_none(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite_or_none(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
