"""The annotations of a file in COCO's format: every field used rightly, or told."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from detectron2.utils.logger import log_first_n

from ion_d2.data.coco_fields import as_id, fault, is_number, wrong
from ion_d2.data.instance_masks import clean_mask, decode_mask

# A number further from the origin is broken: COCO's largest objects have 1e5 x 1e5 pixels.
_FAR = 1e5


class _Fault(ValueError):
    """What is wrong with an annotation, as a clause."""


def normalize_annotations(
    annotations: Sequence[dict[str, Any]],
    images: Sequence[dict[str, Any]],
    categories: Sequence[dict[str, Any]],
    source: str,
) -> list[dict[str, Any]]:
    """Put the annotations of a file in order.

    Args:
        annotations: as the file has them; they are not changed.
        images: of the file, with unique ids, "width" and "height" in pixels.
        categories: of the file, with unique ids.
        source: the file, for messages.

    Returns:
        The annotations, numbered from 1 in "id", whatever the file has there (pycocotools takes a
        match with the id 0 for none, and loses annotations that share one). Each has the "image_id"
        and "category_id" of its image and category, a "bbox" (x, y, width, height) in pixels with
        a positive width and height, "iscrowd" 0 or 1, and an "area", by default that of the mask,
        or else of the box. "segmentation" is a mask or not there. If any object has "keypoints",
        all have, those without being given zeros, which mean unlabeled. Boxes without a pixel
        inside their picture, which no detector can find, are left out with a warning.

    Raises:
        IONError: a field can be used in no sensible way.
    """
    reader = _Reader(images, categories)
    normalized: list[dict[str, Any]] = []
    outside: list[str] = []
    for index, annotation in enumerate(annotations):
        try:
            entry = reader.normalize(annotation)
        except _Fault as error:
            raise fault(source, reader.place(index, annotation), str(error)) from error
        if reader.is_visible(entry):
            normalized.append({**entry, "id": len(normalized) + 1})
        else:
            outside.append(reader.place(index, annotation))
    if outside:
        text = f"{source}: {len(outside)} boxes without a pixel inside their picture are left out"
        log_first_n(logging.WARNING, f"{text} (first: {outside[0]}).", key="message", name=__name__)
    _fill_keypoints(normalized)
    return normalized


class _Reader:
    """Reads single annotations, knowing the images and categories of their file."""

    def __init__(
        self, images: Sequence[dict[str, Any]], categories: Sequence[dict[str, Any]]
    ) -> None:
        self._images = {image["id"]: image for image in images}
        self._categories = {category["id"]: category for category in categories}
        self._keypoints: dict[int | str, int] = {}  # number of them, by category

    def place(self, index: int, annotation: dict[str, Any]) -> str:
        """Where an annotation is, for messages."""
        place, number = f"annotations[{index}]", as_id(annotation.get("id"))
        if number is not None:
            place = f"annotation id {number} ({place})"
        image = self._images.get(as_id(annotation.get("image_id")))
        return place + (f" of image {image['file_name']} (id {image['id']})" if image else "")

    def normalize(self, annotation: dict[str, Any]) -> dict[str, Any]:
        image = _refer(annotation, "image_id", self._images)
        category = _refer(annotation, "category_id", self._categories)
        if annotation.get("ignore") not in (None, 0):
            raise _Fault(wrong(annotation, "ignore", "0 (COCO's format has iscrowd)"))
        box, mask = _box(annotation), _mask(annotation, image)
        points = self._points(annotation, category)
        entry = {
            **annotation,
            "image_id": image["id"],
            "category_id": category["id"],
            "bbox": box,
            "iscrowd": _crowd(annotation),
            "area": _area(annotation, box, mask, image),
        }
        for field, value in (("segmentation", mask), ("keypoints", points)):
            entry.pop(field, None)
            if value:
                entry[field] = value
        return entry

    def is_visible(self, entry: dict[str, Any]) -> bool:
        """Whether any of a box lies in its picture."""
        x, y, width, height = entry["bbox"]
        image = self._images[entry["image_id"]]
        if not width or not height:
            return False
        return -width < x < image["width"] and -height < y < image["height"]

    def _points(self, annotation: dict[str, Any], category: dict[str, Any]) -> list[float] | None:
        points = annotation.get("keypoints")
        if points is None or points == []:
            return None
        if not isinstance(points, list) or not all(map(is_number, points)):
            raise _Fault(wrong(annotation, "keypoints", "a list of numbers"))
        names = category.get("keypoints")
        known = len(names) if isinstance(names, list) and names else len(points) // 3
        number = self._keypoints.setdefault(category["id"], known)
        if len(points) != 3 * number or not set(points[2::3]) <= {0, 1, 2}:
            wanted = f"x, y and visibility (0, 1 or 2) of {number} keypoints"
            raise _Fault(wrong(annotation, "keypoints", wanted))
        return points


def _refer(
    annotation: dict[str, Any], field: str, entries: dict[int | str, dict[str, Any]]
) -> dict[str, Any]:
    """The image or category that an annotation names."""
    number = as_id(annotation.get(field))
    if number not in entries:
        part = "an image" if field == "image_id" else "a category"
        raise _Fault(wrong(annotation, field, f"the id of {part} in the file"))
    return entries[number]


def _box(annotation: dict[str, Any]) -> list[float]:
    box: Any = annotation.get("bbox")
    sound = isinstance(box, list) and len(box) == 4 and all(map(is_number, box))
    if not sound or any(abs(number) > _FAR for number in box):
        raise _Fault(wrong(annotation, "bbox", "four numbers x, y, width, height in pixels"))
    x, y, width, height = box
    # Negative sizes are those of a box that was drawn from another corner.
    return [x + min(width, 0), y + min(height, 0), abs(width), abs(height)]


def _crowd(annotation: dict[str, Any]) -> int:
    crowd = annotation.get("iscrowd")
    if crowd not in (None, 0, 1):
        raise _Fault(wrong(annotation, "iscrowd", "0 or 1"))
    return int(crowd or 0)


def _area(
    annotation: dict[str, Any], box: Sequence[float], mask: Any, image: dict[str, Any]
) -> float:
    area = annotation.get("area")
    if area is None and mask:
        return int(decode_mask(mask, image["height"], image["width"]).sum())
    if area is None:
        return box[2] * box[3]
    if not is_number(area):
        raise _Fault(wrong(annotation, "area", "a number of square pixels"))
    return abs(area)  # as of a box with a negative side, or a polygon the other way round


def _mask(annotation: dict[str, Any], image: dict[str, Any]) -> Any:
    try:
        return clean_mask(annotation.get("segmentation"), image["height"], image["width"])
    except ValueError as error:
        raise _Fault(f"has a segmentation that is no mask: {error}") from error


def _fill_keypoints(annotations: list[dict[str, Any]]) -> None:
    """Give all objects keypoints if any has, as pycocotools and Detectron2 ask for."""
    lengths = {len(entry["keypoints"]) for entry in annotations if "keypoints" in entry}
    if len(lengths) != 1:
        return
    unlabeled = [0] * lengths.pop()
    for entry in annotations:
        entry.setdefault("keypoints", list(unlabeled))
        entry["num_keypoints"] = sum(value > 0 for value in entry["keypoints"][2::3])
