"""Masks of objects, as polygons or run lengths (COCO's RLE), drawn into one label map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pycocotools.mask as mask_util

from ..errors import IONError
from .coco_fields import MOST_PIXELS
from .outlines import corners_of

# A polygon that leaves its picture by more pixels than this is broken; pycocotools walks along
# every edge.
_FAR = 1e5


def draw_label_map(
    annotations: Sequence[dict[str, Any]],
    height: int,
    width: int,
    num_classes: int,
    ignore_label: int = 255,
    *,
    image: str,
) -> np.ndarray | None:
    """Draw the masks of an image's objects into a label map.

    Small objects are drawn over large ones. Crowds are ignored, and so is the box of an object that
    has no mask, except where another object's mask covers them.

    Args:
        annotations: all objects of the image in Detectron2's format, before any augmentation.
        num_classes: number of ids, the background included; object class k becomes id k + 1.
        ignore_label: the id of pixels that belong to no class.
        image: names the image in messages.

    Returns:
        (H, W) uint8 array of ids, or None if no object has a mask.

    Raises:
        IONError: a mask is broken or of another size, or a class has no id.
    """
    if not any(annotation.get("segmentation") for annotation in annotations):
        return None
    labels = np.zeros((height, width), dtype=np.uint8)
    drawn = []
    for annotation in annotations:
        if not annotation.get("segmentation"):
            _fill_box(labels, annotation, ignore_label)
            continue
        try:
            mask = decode_mask(annotation["segmentation"], height, width)
        except ValueError as error:
            raise IONError(
                f"Image {image} has an object whose mask cannot be drawn: {error}; correct the "
                "annotation."
            ) from error
        if annotation.get("iscrowd", 0):
            labels[mask] = ignore_label
        else:
            drawn.append((mask, _label_id(annotation, num_classes, image)))
    # The sort is stable: of equal ones, the later lies on top.
    for mask, label in sorted(drawn, key=lambda pair: -np.count_nonzero(pair[0])):
        labels[mask] = label
    return labels


def decode_mask(segmentation: Any, height: int, width: int) -> np.ndarray:
    """Turn a mask of COCO's format into a boolean array of the image's ``height`` and ``width``.

    Args:
        segmentation: polygons, a list of lists x0, y0, x1, y1, ... in pixels; or run lengths down
            the columns, {"size": [height, width], "counts": a list or COCO's compressed string}.

    Raises:
        ValueError: it is none of these, or of another size than the image; the text says which.
    """
    _check_mask(segmentation, height, width)
    if not isinstance(segmentation, dict):
        segmentation = mask_util.merge(mask_util.frPyObjects(segmentation, height, width))
    elif not isinstance(segmentation["counts"], (str, bytes)):
        segmentation = mask_util.frPyObjects(segmentation, height, width)
    return mask_util.decode(segmentation).astype(bool)


def clean_mask(segmentation: Any, height: int, width: int) -> Any:
    """Drop polygons of fewer than three corners; None if nothing is left of the mask.

    Arguments and errors are those of :func:`decode_mask`; files also write no mask at all as None,
    [], [[]], {} or "".
    """
    if isinstance(segmentation, list):
        lengths = [len(p) if isinstance(p, list) else -1 for p in segmentation]
        if len(lengths) > 2 and set(lengths) == {2}:
            raise ValueError("it is a list of points (x, y), not of polygons x0, y0, x1, y1, ...")
        segmentation = [p for p, length in zip(segmentation, lengths) if length not in (0, 2, 4)]
    if not segmentation:
        return None
    _check_mask(segmentation, height, width)
    return segmentation


def _check_mask(segmentation: Any, height: int, width: int) -> None:
    """Refuse broken and huge masks.

    pycocotools reads past the end of the former, and crashes for want of memory for the latter.
    """
    if height * width > MOST_PIXELS:
        raise ValueError(f"its image would have {height} x {width} pixels, more than can be read")
    if isinstance(segmentation, dict):
        _check_run_lengths(segmentation, height, width)
    elif isinstance(segmentation, list):
        for polygon in segmentation:
            _check_polygon(polygon)
    else:
        raise ValueError("it is neither a list of polygons nor run lengths (RLE)")


def _check_polygon(polygon: Any) -> None:
    try:
        count, total = len(polygon), float(sum(polygon))
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError("a polygon is not a list of numbers") from error
    if count < 6 or count % 2:
        raise ValueError(f"a polygon has {count} numbers, not 6, 8, 10 or more")
    # The sum shows NaN and infinity, which comparisons may miss.
    if not math.isfinite(total) or max(polygon) >= _FAR or min(polygon) <= -_FAR:
        raise ValueError("a polygon has a corner far outside the picture")


def _check_run_lengths(rle: dict[str, Any], height: int, width: int) -> None:
    size = rle.get("size")
    if not (isinstance(size, (list, tuple)) and list(size) == [height, width]):
        raise ValueError(f"its run lengths (RLE) have the size {size}, not [{height}, {width}]")
    try:
        runs = _run_lengths(rle["counts"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError("its run lengths (RLE) cannot be decoded") from error
    if sum(runs) != height * width or min(runs) < 0:
        raise ValueError(
            f"its run lengths (RLE) cover {sum(runs)} pixels, not {height} x {width} = "
            f"{height * width}"
        )


def _run_lengths(counts: str | bytes | Sequence[int]) -> list[int]:
    """Run lengths as numbers.

    COCO's string writes each in groups of 5 bits, the least first, one character from "0" on a
    group, of which bit 5 says that more follow; the last group's bit 4 is the sign. From the fourth
    run on, it is the difference to the run before last.
    """
    if not isinstance(counts, (str, bytes)):
        return [int(count) for count in counts]
    runs: list[int] = []
    value = shift = 0
    for character in counts.encode("ascii") if isinstance(counts, str) else counts:
        group = character - ord("0")
        if not 0 <= group < 64 or shift > 30:  # no picture has runs of more than 35 bits
            raise ValueError("not a compressed string of run lengths")
        value |= (group & 31) << shift
        shift += 5
        if not group & 32:
            value -= (1 << shift) if group & 16 else 0
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    if shift or not runs:
        raise ValueError("a compressed string that ends too early")
    return runs


def _label_id(annotation: dict[str, Any], num_classes: int, image: str) -> int:
    label = annotation["category_id"] + 1
    if not 0 < label < num_classes:
        raise IONError(
            f"Image {image} has an object of class id {label - 1}, but only 0..{num_classes - 2} "
            "have a label; correct the annotation or the list of classes."
        )
    return label


def _fill_box(labels: np.ndarray, annotation: dict[str, Any], value: int) -> None:
    box = corners_of(annotation)
    x0, y0 = (max(math.floor(v), 0) for v in box[:2])
    x1, y1 = (max(math.ceil(v), 0) for v in box[2:])
    labels[y0:y1, x0:x1] = value
