"""Annotation files in COCO's format, looked at as a whole and put in order.

Training, evaluation and report all read what this module returns, so that a field counts the same
in each of them, or is told before any of them starts.
"""

from __future__ import annotations

import json
import os
import unicodedata
from typing import Any, Union

from detectron2.utils.file_io import PathManager

from ion_d2.data.class_file import is_unprintable
from ion_d2.data.coco_annotations import normalize_annotations
from ion_d2.data.coco_fields import as_id, fault, is_number, wrong
from ion_d2.errors import IONError

Content = dict[str, Any]
Id = Union[int, str]


def read_coco_file(json_file: str | os.PathLike[str]) -> Content:
    """Read an annotation file.

    Args:
        json_file: instance annotations, or the images alone, in COCO's format.

    Returns:
        See :func:`normalize_coco`.

    Raises:
        IONError: the file is not readable, or something in it can be used in no sensible way.
    """
    return normalize_coco(_read(json_file), os.fspath(json_file))


def read_categories(json_file: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Read the classes of an annotation file.

    Args:
        json_file: instance annotations, or the images alone, in COCO's format.

    Returns:
        The categories with "id" and "name", in the order of the ids, which is Detectron2's.

    Raises:
        IONError: the file is not readable, or its categories are missing or wrong.
    """
    return _categories(_read(json_file), os.fspath(json_file))


def normalize_coco(content: Any, source: str) -> Content:
    """Look at the whole content of an annotation file and put it in order.

    Args:
        content: what the file holds; it is not changed.
        source: the file, for messages.

    Returns:
        The content as pycocotools and Detectron2 want it. Ids are whole numbers or text, as the
        file has them; class names are text in Unicode's composed form (NFC); sizes are int; for
        annotations see :func:`~ion_d2.data.coco_annotations.normalize_annotations`. It has no
        "annotations" if the file has none, such as that of COCO's test-dev.

    Raises:
        IONError: something can be used in no sensible way; the message names file, place and field.
    """
    categories = _categories(content, source)
    images = _images(content, source)
    normalized = {**content, "categories": categories, "images": images}
    if "annotations" in content:
        listed = _listed(content, "annotations", source)
        normalized["annotations"] = normalize_annotations(listed, images, categories, source)
    return normalized


def _read(json_file: str | os.PathLike[str]) -> Any:
    try:
        with PathManager.open(os.fspath(json_file), "r", encoding="utf-8-sig") as file:
            return json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        raise IONError(f"{json_file} is not readable JSON ({error}); replace it.") from error


def _categories(content: Any, source: str) -> list[dict[str, Any]]:
    listed = _listed(content, "categories", source)
    ids = _unique_ids(listed, "categories", source)
    places: dict[str, str] = {}
    for index, category in enumerate(listed):
        place, name = f"categories[{index}]", _class_name(category.get("name"))
        if not name:
            wanted = "a name of visible characters on one line"
            raise fault(source, place, wrong(category, "name", wanted))
        if name in places:
            twice = f"has the name {name!r} of {places[name]}"
            raise fault(source, place, twice, "give each category a name of its own")
        places[name] = place
    if not listed:
        raise IONError(f"{source}: the list 'categories' is empty; name the classes there.")
    named = [{**c, "id": i, "name": n} for c, i, n in zip(listed, ids, places)]
    return sorted(named, key=lambda category: category["id"])


def _class_name(value: Any) -> str:
    """The name as text; "" if it is none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or is_unprintable(value):
        return ""
    return unicodedata.normalize("NFC", value) if value.strip() else ""


def _images(content: Content, source: str) -> list[dict[str, Any]]:
    listed = _listed(content, "images", source)
    ids = _unique_ids(listed, "images", source)
    places: dict[str, str] = {}
    normalized = []
    for index, (image, image_id) in enumerate(zip(listed, ids)):
        place, name = _place("images", index, image), image.get("file_name")
        if not isinstance(name, str) or not name.strip():
            raise fault(source, place, wrong(image, "file_name", "the name of a picture"))
        if name in places:
            twice = f"has the file_name {name!r} of {places[name]}"
            raise fault(source, place, twice, "list each picture once, with all its annotations")
        places[name] = place
        sides = {side: _pixels(image, side, source, place) for side in ("width", "height")}
        normalized.append({**image, "id": image_id, **sides})
    return normalized


def _pixels(image: dict[str, Any], side: str, source: str, place: str) -> int:
    value: Any = image.get(side)
    if not is_number(value) or value < 1 or value != int(value):
        raise fault(source, place, wrong(image, side, "a number of pixels"))
    return int(value)


def _listed(content: Any, part: str, source: str) -> list[dict[str, Any]]:
    """The entries of a part of the file, each of which is a dict."""
    entries = content.get(part) if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise IONError(
            f"{source} has no list '{part}', as annotations in COCO's format do; add it or give "
            "another file."
        )
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict):
            kind = type(entry).__name__
            raise fault(source, f"{part}[{index}]", f"is of the type {kind}, not an object")
    return entries


def _unique_ids(entries: list[dict[str, Any]], part: str, source: str) -> list[Id]:
    """The ids of images or categories, all of one kind, so that they can be sorted."""
    first: dict[Id, int] = {}
    ids: list[Id] = []
    for index, entry in enumerate(entries):
        place, identity = _place(part, index, entry), as_id(entry.get("id"))
        if identity is None:
            raise fault(source, place, wrong(entry, "id", "a whole number or text"))
        if identity in first:
            other = _place(part, first[identity], entries[first[identity]])
            twice = f"has the id {identity!r} of {other}"
            raise fault(source, place, twice, "give each an id of its own, in annotations as well")
        if ids and type(ids[0]) is not type(identity):
            mixed = f"has the id {identity!r}, but {part}[0] {ids[0]!r}"
            raise fault(source, place, mixed, "write all ids as numbers, or all as text")
        first[identity] = index
        ids.append(identity)
    return ids


def _place(part: str, index: int, entry: dict[str, Any]) -> str:
    name = entry.get("file_name", entry.get("name"))
    return f"{part}[{index}]" + (f" ({name})" if isinstance(name, str) else "")
