"""Annotation files in COCO's format, read by Detectron2 and checked."""

from __future__ import annotations

import json
import math
from typing import Any, Callable

from ion_d2.data.instance_masks import rle_fault
from ion_d2.errors import IONError


def read_categories(json_file: str) -> dict[int, str]:
    """Read the classes of an annotation file.

    Args:
        json_file: instance annotations in COCO's format.

    Returns:
        Class names by category id, in the order of the ids, which is Detectron2's.

    Raises:
        IONError: the file is not readable or names no category.
    """
    try:
        with open(json_file, encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError) as error:
        raise IONError(f"{json_file} is not readable JSON ({error}); replace it.") from error
    try:
        categories = {int(entry["id"]): str(entry["name"]) for entry in content["categories"]}
    except (KeyError, TypeError, ValueError):
        categories = {}
    if not categories:
        raise IONError(
            f"{json_file} has no list 'categories' of entries with 'id' and 'name', as COCO's "
            "instance annotations do; add it or give another file."
        )
    return dict(sorted(categories.items()))


class CheckedLoader:
    """Wraps the loader of a COCO dataset so that broken files are told in one sentence."""

    def __init__(self, load: Callable[[], list[dict[str, Any]]], json_file: str) -> None:
        """
        Args:
            load: returns the dataset's dicts.
            json_file: what it reads, for messages.
        """
        self._load, self._json_file = load, json_file

    def __call__(self) -> list[dict[str, Any]]:
        """Load the dicts.

        Returns:
            The dicts, in Detectron2's format.

        Raises:
            IONError: the file is not in COCO's format, a size or a box is not one, or run lengths
                do not fit their image.
        """
        try:
            dicts = self._load()
        except IONError:
            raise
        except (AssertionError, LookupError, TypeError, ValueError, ArithmeticError) as error:
            raise IONError(
                f"{self._json_file} is not a file of instance annotations in COCO's format "
                f"({type(error).__name__}: {error}); correct or replace it."
            ) from error
        for record in dicts:
            self._check_size(record)
            for number, annotation in enumerate(record.get("annotations", ()), start=1):
                fault = _fault(annotation, record)
                if fault:
                    raise self._error(f"annotation {number} of ", record, fault)
        return dicts

    def _check_size(self, record: dict[str, Any]) -> None:
        for side in ("height", "width"):
            if not isinstance(record[side], int) or record[side] < 1:
                fault = f"has the {side} {record[side]!r}, not a number of pixels"
                raise self._error("", record, fault)

    def _error(self, part: str, record: dict[str, Any], fault: str) -> IONError:
        return IONError(
            f"{self._json_file}: {part}image {record['file_name']} (id {record['image_id']}) "
            f"{fault}; correct or remove it."
        )


def _fault(annotation: dict[str, Any], record: dict[str, Any]) -> str:
    """What is wrong with an annotation; "" if nothing is."""
    box = annotation.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        return f"has the bbox {box!r}, not four numbers x, y, width, height"
    segmentation = annotation.get("segmentation")
    if not isinstance(segmentation, dict):
        return ""
    fault = rle_fault(segmentation, record["height"], record["width"])
    return f"has a wrong mask: {fault}" if fault else ""


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
