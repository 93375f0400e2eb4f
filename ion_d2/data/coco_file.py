"""Annotation files in COCO's format, checked as a whole and put in order.

Training, evaluation and report all read what this module returns, so a field means the same to
each.
"""

from __future__ import annotations

import os
from typing import Any

from ..errors import IONError
from .class_file import is_unprintable
from .coco_annotations import normalize_annotations
from .coco_fields import FieldFault, Rule, as_id, as_pixels, as_text, clean_fields, fault
from .folders import composed
from .plain_files import read_json
from .reading_on import read_each

Content = dict[str, Any]


def read_coco_file(json_file: str | os.PathLike[str]) -> Content:
    """Read an annotation file and put it in order; see :func:`normalize_coco`, also for errors."""
    return normalize_coco(read_json(json_file), os.fspath(json_file))


def read_categories(json_file: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Read the classes of an annotation file, sorted by id as Detectron2 does.

    Raises:
        IONError: the file is not readable, or its categories are missing or wrong.
    """
    return _categories(read_json(json_file), os.fspath(json_file))


def normalize_coco(content: Any, source: str) -> Content:
    """Check the content of an annotation file and put it in order.

    Returns:
        New content, as pycocotools and Detectron2 want it. Ids are whole numbers or text, as in the
        file; class names are text in Unicode's composed form (NFC); sizes are int; for annotations
        see :func:`~ion_d2.data.coco_annotations.normalize_annotations`. There are no "annotations"
        if the file has none, such as that of COCO's test-dev.

    Raises:
        IONError: something cannot be used; the message names file, place and field.
    """
    categories, images = _categories(content, source), _entries(content, "images", source)
    normalized = {**content, "categories": categories, "images": images}
    if "annotations" in content:
        listed = _listed(content, "annotations", source)
        normalized["annotations"] = normalize_annotations(listed, images, categories, source)
    return normalized


def _class_name(value: Any) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    name = as_text(value)
    return None if name is None or is_unprintable(name) else composed(name)


_SIDE = Rule("a number of pixels", as_pixels)
_ID = Rule("a whole number or text", as_id, unique="give each its own id, in annotations as well")
_CATEGORY = Rule(
    "a name of visible characters on one line", _class_name, unique="give each its own name"
)
_PICTURE = Rule(
    "the name of a picture on one line",
    lambda name: None if as_text(name) is None or is_unprintable(name) else name,
    unique="list each once, with all its annotations",
)
_RULES = {
    "categories": {"id": _ID, "name": _CATEGORY},
    "images": {"id": _ID, "file_name": _PICTURE, "width": _SIDE, "height": _SIDE},
}


def _categories(content: Any, source: str) -> list[dict[str, Any]]:
    categories = _entries(content, "categories", source)
    if not categories:
        raise IONError(f"{source}: the list 'categories' is empty; name the classes there.")
    return sorted(categories, key=lambda category: category["id"])


def _entries(content: Any, part: str, source: str) -> list[dict[str, Any]]:
    """The clean categories or images of a file."""
    entries: list[dict[str, Any]] = []
    places: dict[tuple[str, Any], str] = {}  # by field and value

    def add(numbered: tuple[int, dict[str, Any]]) -> None:
        place, raw = _place(part, *numbered), numbered[1]
        try:
            entry = clean_fields(raw, _RULES[part])
        except FieldFault as error:
            raise fault(source, place, str(error)) from error
        for field, rule in _RULES[part].items():
            other = places.setdefault((field, entry[field]), place)
            if rule.unique and other != place:
                shared = f"has the {field} {entry[field]!r} of {other}"
                raise fault(source, place, shared, rule.unique)
        if entries and type(entry["id"]) is not type(entries[0]["id"]):
            mixed = f"has the id {entry['id']!r}, but {part}[0] {entries[0]['id']!r}"
            raise fault(source, place, mixed, "write all ids as numbers, or all as text")
        entries.append(entry)

    read_each(enumerate(_listed(content, part, source)), add)
    return entries


def _listed(content: Any, part: str, source: str) -> list[dict[str, Any]]:
    """The entries of a part of the file, each of which is a dict."""
    entries = content.get(part) if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise IONError(f"{source} has no list '{part}', which COCO's format needs; add the list.")
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict):
            kind = type(entry).__name__
            raise fault(source, f"{part}[{index}]", f"is of the type {kind}, not an object")
    return entries


def _place(part: str, index: int, entry: dict[str, Any]) -> str:
    name = entry.get("file_name", entry.get("name"))
    named = isinstance(name, str) and not is_unprintable(name)
    return f"{part}[{index}] ({name})" if named else f"{part}[{index}]"
