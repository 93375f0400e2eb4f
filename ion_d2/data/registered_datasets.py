"""Datasets that users register as functions: their dicts, completed and checked."""

from __future__ import annotations

import functools
import logging
import math
import numbers
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from ..errors import IONError
from .coco_fields import as_pixels, is_number
from .outlines import corners_of
from .readable import read_size
from .reading_on import is_reading_on, read_each, refuse

logger = logging.getLogger(__name__)

Record = dict[str, Any]


def adopt_function(name: str) -> None:
    """Have :func:`load_completed` call the function of a registered dataset, unless it is ours."""
    load = DatasetCatalog.data[name]
    ours = getattr(getattr(load, "func", load), "__module__", None) or ""
    if not ours.startswith("ion_d2."):
        DatasetCatalog.remove(name)
        DatasetCatalog.register(name, functools.partial(load_completed, name, load))


def register_completed(
    name: str, load: Callable[[], Iterable[Record]], classes: Sequence[str]
) -> None:
    """Register a dataset whose dicts :func:`load_completed` completes and checks."""
    DatasetCatalog.register(name, functools.partial(load_completed, name, load))
    MetadataCatalog.get(name).set(thing_classes=list(classes))


def load_completed(name: str, load: Callable[[], Iterable[Record]]) -> list[Record]:
    """Call a dataset's function, fill in what Detectron2 lets it leave out, and check the rest.

    File names become text, "height" and "width" are read from the picture where they are missing,
    and "image_id" is the place in the list. Boxes without extent, which Detectron2 does not train
    on, are left out. The dicts that are returned are new.

    Raises:
        IONError: something in a dict is missing or not usable.
    """
    records = read_each(enumerate(list(load())), lambda numbered: _complete(name, *numbered))
    if not any("annotations" in record for record in records):
        return records
    classes = MetadataCatalog.get(name).get("thing_classes") or None
    empty = []

    def keep_usable(record: Record) -> Record:
        kept = _usable_annotations(name, record, classes)
        if len(kept) < len(record["annotations"]):
            empty.append(record["file_name"])
        return {**record, "annotations": kept}

    records = read_each(records, keep_usable)
    if empty:
        text = "Left out boxes without extent in %d image(s) of dataset '%s', the first in %s."
        logger.warning(text, len(empty), name, empty[0])
    return records


def _complete(name: str, index: int, record: Record) -> Record:
    named = isinstance(record, dict) and record.get("file_name")
    if not isinstance(named, (str, os.PathLike)):
        raise IONError(
            f"Dataset '{name}': entry {index} is not a dict with the 'file_name' of a "
            "picture; correct the function that returns it."
        )
    record = {"image_id": index, **record, "file_name": os.fspath(named)}
    label_map = record.pop("sem_seg_file_name", None)
    if label_map is not None:
        record["sem_seg_file_name"] = os.fspath(label_map)
    if record.get("height") is None or record.get("width") is None:
        try:
            record["height"], record["width"] = read_size(record["file_name"])
        except IONError as error:
            raise type(error)(f"Dataset '{name}': {error}", rule=error.rule) from error
    for side in ("height", "width"):
        pixels = as_pixels(record[side])
        if pixels is None:
            raise _wrong(name, record, f"has the {side} {record[side]!r}, not a number of pixels")
        record[side] = pixels
    return record


def _usable_annotations(name: str, record: Record, classes: Any) -> list[Record]:
    """The annotations with an extent; raises an error of the first that is not usable."""
    if "annotations" not in record:
        raise _wrong(name, record, "has no 'annotations', not even an empty list, as others do")
    if not isinstance(record["annotations"], (list, tuple)):
        raise _wrong(name, record, f"has the annotations {record['annotations']!r}, not a list")
    kept = []
    for annotation in record["annotations"]:
        fault = _fault(annotation, None if classes is None else len(classes))
        if fault:
            refuse(_wrong(name, record, f"has an annotation {fault}"))
        elif _least_extent(annotation) > 0 or is_reading_on():
            kept.append(_with_lists(annotation))
    return kept


def _with_lists(annotation: Record) -> Record:
    """A copy whose box and keypoints are lists of its own, in which Detectron2 moves them."""
    own = {**annotation, "bbox": [float(v) for v in annotation["bbox"]]}
    if isinstance(annotation.get("keypoints"), Iterable):
        own["keypoints"] = list(annotation["keypoints"])
    return own


def _wrong(name: str, record: Record, fault: str) -> IONError:
    return IONError(
        f"Dataset '{name}': image {record['file_name']} {fault}; correct the function "
        "that returns it."
    )


def _fault(annotation: Any, num_classes: int | None) -> str:
    """What is wrong with an annotation, as a clause; "" if nothing is."""
    if not isinstance(annotation, dict):
        return f"{annotation!r} that is not a dict"
    for key in ("bbox", "bbox_mode", "category_id"):
        if annotation.get(key) is None:
            return f"without '{key}'"
    try:
        mode, box = BoxMode(annotation["bbox_mode"]), list(annotation["bbox"])
    except (TypeError, ValueError):
        return f"with the bbox {annotation['bbox']!r} in the mode {annotation['bbox_mode']!r}"
    if mode not in (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS, BoxMode.XYWHA_ABS):
        return f"with the bbox_mode {mode!r}, but boxes must be XYXY_ABS or XYWH_ABS"
    numbers_wanted = 5 if mode == BoxMode.XYWHA_ABS else 4
    if len(box) != numbers_wanted or not all(map(is_number, box)):
        return f"with the bbox {box}, not {numbers_wanted} numbers"
    if _least_extent(annotation) < 0:
        return f"with the bbox {box}, whose right or bottom is below its left or top"
    category = annotation["category_id"]
    whole = isinstance(category, numbers.Integral) and not isinstance(category, bool)
    if not whole or not 0 <= category < (math.inf if num_classes is None else num_classes):
        known = "" if num_classes is None else f" to {num_classes - 1}"
        return f"with the category_id {category!r}, but classes are numbered from 0{known}"
    return ""


def _least_extent(annotation: Record) -> float:
    """The lesser of a box's width and height; infinite for a rotated one, which may have any."""
    if annotation["bbox_mode"] == BoxMode.XYWHA_ABS:
        return math.inf
    x0, y0, x1, y1 = corners_of(annotation)
    return min(x1 - x0, y1 - y0)
