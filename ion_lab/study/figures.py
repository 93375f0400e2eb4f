"""Figures out of a run's ``voc_results.json``."""

from __future__ import annotations

import fnmatch
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ion_d2.data.plain_files import read_json
from ion_d2.errors import IONError


def read_figures(path: Path, columns: Mapping[str, str]) -> dict[str, float | None]:
    """Read the figures of a table's columns from a ``voc_results.json``; see :func:`figures_in`.

    Raises:
        IONError: the file cannot be read, or a place matches nothing in it.
    """
    content = read_json(path, "remove it to evaluate again")
    return figures_in(content, columns, str(path))


def figures_in(content: Any, columns: Mapping[str, str], source: str) -> dict[str, float | None]:
    """Find the figures of a table's columns.

    Args:
        content: of a ``voc_results.json``.
        columns: heading -> place: keys joined by "/", with wildcards as in file names. Where they
            match several figures, as in "classes/tile_*/area/AP50", their mean is taken.
        source: where the content is from, for the error.

    Returns:
        Heading -> figure; None where there was nothing to find, such as objects of a size.

    Raises:
        IONError: a place matches nothing.
    """
    figures = {}
    for heading, place in columns.items():
        found = _match(content, place.split("/"))
        if not found or any(isinstance(value, (dict, list, str)) for value in found):
            raise IONError(
                f"The column {heading!r} is at {place}, but {source} has no figure there."
            )
        there = [float(value) for value in found if value is not None]
        figures[heading] = statistics.fmean(there) if there else None
    return figures


def _match(content: Any, keys: list[str]) -> list[Any]:
    if not keys:
        return [content]
    if not isinstance(content, dict):
        return []
    return [
        value
        for name, part in content.items()
        if fnmatch.fnmatchcase(name, keys[0])
        for value in _match(part, keys[1:])
    ]
