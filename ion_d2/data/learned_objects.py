"""Which labeled objects a training takes."""

from __future__ import annotations

from typing import Any


def is_learned(annotation: dict[str, Any], use_difficult: bool) -> bool:
    """Whether a training takes an object: no crowd, nor, unless asked for, one marked difficult."""
    difficult = annotation.get("difficult", 0) and not use_difficult
    return not (annotation.get("iscrowd", 0) or difficult)


def with_learned_objects(records: list[dict], use_difficult: bool) -> list[dict]:
    """The images that have such an object, or no annotations.

    All that an image shows would be background in the others, difficult objects too.
    """
    return [
        record
        for record in records
        if "annotations" not in record
        or any(is_learned(annotation, use_difficult) for annotation in record["annotations"])
    ]
