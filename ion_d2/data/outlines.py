"""Objects of formats that have boxes and outlines side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from detectron2.structures import BoxMode

from .reading_on import is_reading_on

# In pixels: how far programs differ on where a picture ends, and what readers take for a line.
BORDER, LINE = 1.0, 1.0


def clip(corners: Any, size: tuple[int, int]) -> tuple[np.ndarray, bool]:
    """Clip corners (N, 2) to a picture of a height and width, unless faults are being listed.

    Returns:
        The corners, and whether one of them was more than a pixel off.
    """
    corners, (height, width) = np.asarray(corners, dtype=np.float64), size
    if is_reading_on():
        return corners, False
    clipped = np.clip(corners, 0, (width, height))
    return clipped, bool((np.abs(corners - clipped) > BORDER).any())


def outline_inside(corners: Any, size: tuple[int, int]) -> np.ndarray:
    """The part of an outline (N, 2) in a picture of a height and width: (M, 2), M 0 if none is.

    By Sutherland and Hodgman: a border after the other cuts off what lies beyond it.
    """
    corners, (height, width) = np.asarray(corners, dtype=np.float64).reshape(-1, 2), size
    clipped = np.clip(corners, 0, (width, height))
    if np.array_equal(clipped, corners):  # as nearly all do, of many thousands
        return corners
    for axis, border, inward in ((0, 0, 1), (1, 0, 1), (0, width, -1), (1, height, -1)):
        depths = inward * (corners[:, axis] - border)
        ends = zip(np.roll(corners, -1, axis=0), np.roll(depths, -1))
        kept: list[np.ndarray] = []
        for start, depth, (end, end_depth) in zip(corners, depths, ends):
            if depth >= 0:
                kept.append(start)
            if min(depth, end_depth) < 0 < max(depth, end_depth):
                kept.append(start + (end - start) * (depth / (depth - end_depth)))
        corners = np.reshape(kept, (-1, 2))
    return np.clip(corners, 0, (width, height))


def object_of(
    polygons: Sequence[Any], category: int, size: tuple[int, int], *, is_box: bool
) -> dict[str, Any]:
    """An annotation of one object in Detectron2's format; "cut" if :func:`clip` says so.

    Args:
        polygons: (N, 2) corners x, y each, in pixels; of them, the part in the picture is taken.
        category: the class.
        size: height and width of the picture.
        is_box: whether the object has a box alone, which is what spans the corners.
    """
    clipped, cut = zip(*(clip(polygon, size) for polygon in polygons))
    if not is_box and not is_reading_on():
        parts = (outline_inside(polygon, size) for polygon in polygons)
        clipped = tuple(filter(len, parts)) or clipped
    corners = np.concatenate(clipped)
    box = [*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist()]
    found = {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": category}
    if any(cut):
        found["cut"] = True
    if not is_box:
        found["segmentation"] = [polygon.ravel().tolist() for polygon in clipped]
    return found


def corners_of(annotation: dict[str, Any]) -> list[float]:
    """The x0, y0, x1, y1 of a box in Detectron2's format, of any mode in pixels."""
    box = [float(value) for value in annotation["bbox"]]
    corners: list[float] = BoxMode.convert(box, annotation["bbox_mode"], BoxMode.XYXY_ABS)
    return corners


def outline_boxes(records: Sequence[dict[str, Any]]) -> None:
    """Where some objects of a dataset have an outline, give every other that of its box.

    Detectron2 asks for the masks of all objects or of none.
    """
    objects = [found for record in records for found in record.get("annotations", ())]
    if not any("segmentation" in found for found in objects):
        return
    for found in objects:
        x0, y0, x1, y1 = found["bbox"]
        found.setdefault("segmentation", [[x0, y0, x1, y0, x1, y1, x0, y1]])
