"""The annotations of a file in COCO's format: every field used rightly, or reported."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Union

from detectron2.utils.logger import log_first_n

from .coco_fields import FieldFault, Id, Rule, as_id, clean_fields, fault, is_number, wrong
from .instance_masks import clean_mask, decode_mask
from .reading_on import is_reading_on, read_each

_Entries = dict[Union[Id, None], dict[str, Any]]
# A number further from the origin is broken: COCO's largest objects have 1e5 x 1e5 pixels.
_FAR = 1e5


def normalize_annotations(
    annotations: Sequence[dict[str, Any]],
    images: Sequence[dict[str, Any]],
    categories: Sequence[dict[str, Any]],
    source: str,
) -> list[dict[str, Any]]:
    """Check annotations and put them in order, given the clean images and categories of the file.

    Returns:
        The annotations, numbered from 1 in "id", whatever the file has there (pycocotools takes a
        match with the id 0 for none, and loses annotations that share one). Each has the "image_id"
        and "category_id" of its image and category, a "bbox" (x, y, width, height) in pixels with
        positive width and height, "iscrowd" 0 or 1, and an "area", by default that of the mask or
        else of the box. "segmentation" is a mask or absent. If any object has "keypoints", all
        have, unless classes differ in their number; zeros, which mean unlabeled, stand in for
        missing ones. Boxes without a pixel inside their picture, which no detector can find, are
        left out with a warning.

    Raises:
        IONError: a field cannot be used.
    """
    reader = _Reader({i["id"]: i for i in images}, {c["id"]: c for c in categories})
    normalized: list[dict[str, Any]] = []
    outside: list[str] = []

    def normalize(numbered: tuple[int, dict[str, Any]]) -> None:
        try:
            entry = reader.normalize(numbered[1])
        except FieldFault as error:
            raise fault(source, reader.place(*numbered), str(error)) from error
        if reader.is_visible(entry) or is_reading_on():
            normalized.append({**entry, "id": len(normalized) + 1})
        else:
            outside.append(reader.place(*numbered))

    read_each(enumerate(annotations), normalize)
    if outside:
        text = f"{source}: {len(outside)} boxes without a pixel inside their picture are left out"
        log_first_n(logging.WARNING, f"{text} (first: {outside[0]}).", key="message", name=__name__)
    _fill_keypoints(normalized)
    return normalized


def _box(value: Any) -> list[float] | None:
    sound = isinstance(value, list) and len(value) == 4 and all(map(is_number, value))
    if not sound or any(abs(number) > _FAR for number in value):
        return None
    if is_reading_on():
        return list(value)
    x, y, width, height = value
    # Negative sizes are those of a box that was drawn from another corner.
    return [x + min(width, 0), y + min(height, 0), abs(width), abs(height)]


def _points(value: Any) -> list[float] | None:
    return value if isinstance(value, list) and all(map(is_number, value)) else None


_RULES = {
    "bbox": Rule("four numbers x, y, width, height in pixels", _box),
    "iscrowd": Rule("0 or 1", lambda x: int(x) if x in (0, 1) else None, optional=True),
    # Negative as of a box with a negative side, or of a polygon the other way round.
    "area": Rule(
        "a number of square pixels", lambda x: abs(x) if is_number(x) else None, optional=True
    ),
    "keypoints": Rule("a list of numbers", _points, optional=True),
    "ignore": Rule("0 (see iscrowd)", lambda x: 0 if x == 0 else None, optional=True),
}


@dataclass
class _Reader:
    """Reads single annotations, knowing the images and categories of their file by id."""

    images: _Entries
    categories: _Entries
    keypoints: dict[Id, int] = field(default_factory=dict)  # number of them, by category

    def place(self, index: int, annotation: dict[str, Any]) -> str:
        """Where an annotation is, for messages."""
        place, number = f"annotations[{index}]", as_id(annotation.get("id"))
        if number is not None:
            place = f"annotation id {number} ({place})"
        image = self.images.get(as_id(annotation.get("image_id")))
        return place + (f" of image {image['file_name']} (id {image['id']})" if image else "")

    def normalize(self, annotation: dict[str, Any]) -> dict[str, Any]:
        image = _refer(annotation, "image_id", self.images, "an image")
        category = _refer(annotation, "category_id", self.categories, "a category")
        entry = clean_fields(annotation, _RULES)
        entry.update(image_id=image["id"], category_id=category["id"])
        entry["iscrowd"] = entry.get("iscrowd") or 0
        mask = _mask(entry.pop("segmentation", None), image)
        if mask:
            entry["segmentation"] = mask
        if entry.get("area") is None:
            entry["area"] = entry["bbox"][2] * entry["bbox"][3]
            if mask:
                entry["area"] = int(decode_mask(mask, image["height"], image["width"]).sum())
        points = entry.pop("keypoints", None)
        if points:
            self._check_points(annotation, category)
            entry["keypoints"] = points
        return entry

    def is_visible(self, entry: dict[str, Any]) -> bool:
        """Whether any of a box lies in its picture."""
        x, y, width, height = entry["bbox"]
        image = self.images[entry["image_id"]]
        inside = -width < x < image["width"] and -height < y < image["height"]
        return bool(width and height and inside)

    def _check_points(self, annotation: dict[str, Any], category: dict[str, Any]) -> None:
        points, names = annotation["keypoints"], category.get("keypoints")
        known = len(names) if isinstance(names, list) and names else max(len(points) // 3, 1)
        number = self.keypoints.setdefault(category["id"], known)
        if len(points) != 3 * number or not set(points[2::3]) <= {0, 1, 2}:
            wanted = f"x, y and visibility (0, 1 or 2) of {number} keypoints"
            raise FieldFault(wrong(annotation, "keypoints", wanted))


def _refer(annotation: dict[str, Any], key: str, entries: _Entries, kind: str) -> dict[str, Any]:
    """The image or category that an annotation names."""
    number = as_id(annotation.get(key))
    if number not in entries:
        raise FieldFault(wrong(annotation, key, f"the id of {kind} in the file"))
    return entries[number]


def _mask(segmentation: Any, image: dict[str, Any]) -> Any:
    try:
        return clean_mask(segmentation, image["height"], image["width"])
    except ValueError as error:
        raise FieldFault(f"has a segmentation that is no mask: {error}") from error


def _fill_keypoints(annotations: list[dict[str, Any]]) -> None:
    """Give all objects keypoints if any has, as pycocotools and Detectron2 require."""
    lengths = {len(entry["keypoints"]) for entry in annotations if "keypoints" in entry}
    if len(lengths) != 1:
        return
    unlabeled = [0] * lengths.pop()
    for entry in annotations:
        entry.setdefault("keypoints", list(unlabeled))
        entry["num_keypoints"] = sum(value > 0 for value in entry["keypoints"][2::3])
