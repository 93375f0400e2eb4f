"""Annotation files in COCO's format, read by Detectron2 and checked."""

from __future__ import annotations

import json
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
            IONError: the file is not in COCO's format, or run lengths do not fit their image.
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
            self._check_masks(record)
        return dicts

    def _check_masks(self, record: dict[str, Any]) -> None:
        for number, annotation in enumerate(record.get("annotations", ()), start=1):
            segmentation = annotation.get("segmentation")
            if not isinstance(segmentation, dict):
                continue
            fault = rle_fault(segmentation, record["height"], record["width"])
            if fault:
                raise IONError(
                    f"{self._json_file}: annotation {number} of image {record['file_name']} (id "
                    f"{record['image_id']}) has a wrong mask: {fault}; correct or remove it."
                )
