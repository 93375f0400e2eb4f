"""Figures out of a run's ``voc_results.json``, and the places where it has some."""

from __future__ import annotations

import fnmatch
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ion_d2.data.coco_fields import is_number
from ion_d2.data.plain_files import read_json
from ion_d2.errors import IONError
from ion_d2.evaluation import COCO_METRICS, COCO_THRESHOLDS
from ion_d2.evaluation.voc_ap import METRICS

_CLASSES = "classes"
_MEANS = dict.fromkeys(("AP", "AP50", "AP75"))
_OF_CLASS = {
    **dict.fromkeys(("num_images", "num_boxes", "num_difficult")),
    **dict.fromkeys(METRICS, {**_MEANS, "by_iou": {f"{t:.2f}": None for t in COCO_THRESHOLDS}}),
}

PLACES = {
    _CLASSES: {"a class": _OF_CLASS},
    "mean": dict.fromkeys(METRICS, _MEANS),
    "coco": dict.fromkeys(COCO_METRICS),
}
"""The places of a ``voc_results.json``, without figures, one class standing for all."""


def is_place(place: str) -> bool:
    """Whether a results file has figures at a place, provided its data has the class named."""
    keys = place.split("/")
    return _are_figures(_match(PLACES, [*keys[:1], "*", *keys[2:]] if _asks_class(keys) else keys))


def columns_without_class(columns: Mapping[str, str], class_names: Iterable[str]) -> list[str]:
    """Headings of the columns that ask for classes of which the data has none."""
    content = {_CLASSES: dict.fromkeys(class_names)}
    return [h for h, place in columns.items() if _lacks_class(content, place.split("/"))]


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
        Heading -> figure; None where there was nothing to find, such as objects of a size or of a
        class.

    Raises:
        IONError: a place matches nothing, and not for want of a class.
    """
    figures = {}
    for heading, place in columns.items():
        keys = place.split("/")
        found = _match(content, keys)
        if not (_are_figures(found) or _lacks_class(content, keys)):
            raise IONError(
                f"The column {heading!r} is at {place}, but {source} has no figure there."
            )
        there = [float(value) for value in found if value is not None]
        figures[heading] = statistics.fmean(there) if there else None
    return figures


def _asks_class(keys: list[str]) -> bool:
    return keys[0] == _CLASSES and len(keys) > 1


def _lacks_class(content: Any, keys: list[str]) -> bool:
    classes = content.get(_CLASSES) if isinstance(content, dict) else None
    return isinstance(classes, dict) and _asks_class(keys) and not _match(classes, keys[1:2])


def _are_figures(found: list[Any]) -> bool:
    return bool(found) and all(value is None or is_number(value) for value in found)


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
