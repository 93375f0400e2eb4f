"""Folders of labelme's files: a JSON file for each picture, which lies beside it or inside."""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import logging
import math
import ntpath
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
from iopath.common.file_io import get_cache_dir

from ..errors import IONError
from ..files import write_result
from .class_file import check_class_names, clean_class_name, read_class_file
from .coco_fields import MOST_PIXELS, as_pixels, is_number
from .dataset_names import DATASET_FORMS, absolute, require_path
from .folders import index_folder, named_file, path_from
from .instance_masks import decode_mask
from .outlines import object_of, outline_boxes
from .plain_files import read_json
from .readable import DECODE_ERRORS, open_picture, read_size
from .reading_on import read_each, refuse
from .registered_datasets import register_completed

logger = logging.getLogger(__name__)

# labelme's own names for what is no object.
_NO_CLASS = ("__ignore__", "_background_")
# Shapes whose points are corners, X-AnyLabeling's among them, and how many each has at least.
_OUTLINES = {"polygon": 3, "oriented_rectangle": 4, "rotation": 4, "quadrilateral": 4}
# All that have an extent, likewise; others are left out.
_POINTS = {"rectangle": 2, "circle": 2, "mask": 2, **_OUTLINES}
_CIRCLE_CORNERS = 64


@DATASET_FORMS.register()
def labelme(name: str) -> None:
    """Register ``labelme:DIR``, with the classes of its ``classes.txt``, or else all its labels.

    Raises:
        IONError: the folder is missing or has no such file, or one is not usable.
    """
    folder = absolute(name[len("labelme:") :])
    require_path(name, folder)
    files = sorted(index_folder(folder, [".json"]).values())
    if not files:
        raise IONError(f"Dataset '{name}': {folder} has no .json file of labelme.")
    listed = os.path.join(folder, "classes.txt")
    if os.path.exists(listed):
        # labelme's own list begins with its names of what is no object.
        classes = [name for name in read_class_file(listed) if name not in _NO_CLASS]
    else:
        shapes = read_each(files, lambda file: list(_shapes(_read(file), file)))
        objects = (shape for each in shapes for shape in each if shape["shape_type"] in _POINTS)
        labels = {shape["label"] for shape in objects}
        if not labels:
            raise IONError(f"Dataset '{name}': no file in {folder} has an object; write {listed}.")
        classes = check_class_names(sorted(labels), f"Dataset '{name}'")
    register_completed(name, functools.partial(load_labelme, folder, files, classes), classes)


def load_labelme(folder: str, files: Sequence[str], classes: Sequence[str]) -> list[dict[str, Any]]:
    """Load pictures and their shapes; those of one label and group are one object.

    Shapes of other kinds, such as lines and points, are left out with a warning. A picture's id is
    the path of its file of labels from ``folder`` on.

    Returns:
        Detectron2's dataset dicts.

    Raises:
        IONError: a file is not labelme's, lacks its picture, or has an unknown class.
    """
    left_out: list[str] = []

    def load(file: str) -> dict[str, Any]:
        content = _read(file)
        picture = _picture(content, file)
        height, width = size = _size(content, picture)
        shapes = list(_shapes(content, file))
        objects = [shape for shape in shapes if shape["shape_type"] in _POINTS]
        left_out.extend(s["shape_type"] for s in shapes if s["shape_type"] not in _POINTS)
        annotations = _annotations(objects, classes, size, file)
        record = {"file_name": picture, "image_id": path_from(folder, file)}
        return {**record, "height": height, "width": width, "annotations": annotations}

    records = read_each(files, load)
    if left_out:
        text = "Left out %d shape(s) of the kind(s) %s, which are not read as objects."
        logger.warning(text, len(left_out), ", ".join(sorted({*left_out})))
    outline_boxes(records)
    return records


def _size(content: dict[str, Any], picture: str) -> tuple[int, int]:
    """Height and width as labeled, so that a picture that was scaled since is noticed."""
    height, width = (as_pixels(content.get(key)) for key in ("imageHeight", "imageWidth"))
    if height and width and height * width <= MOST_PIXELS:
        return height, width
    return read_size(picture)


def _annotations(
    shapes: list[dict[str, Any]], classes: Sequence[str], size: tuple[int, int], file: str
) -> list[dict[str, Any]]:
    groups: dict[Any, list[dict[str, Any]]] = {}
    for index, shape in enumerate(shapes):
        label, group = shape["label"], shape.get("group_id")
        if label not in classes:
            text = (
                f"{file} has the label {label!r}, which classes.txt does not name; correct it, or "
                "add it there."
            )
            refuse(IONError(text, rule="unknown-class"))
            continue
        groups.setdefault((label, index if group is None else str(group)), []).append(shape)
    return [
        _object(group, classes.index(label), size, file) for (label, _), group in groups.items()
    ]


def _object(
    shapes: list[dict[str, Any]], category: int, size: tuple[int, int], file: str
) -> dict[str, Any]:
    polygons = [_corners(shape) for shape in shapes]
    is_box = all(shape["shape_type"] == "rectangle" for shape in shapes)
    found = object_of(polygons, category, size, is_box=is_box)
    if any(shape.get("difficult") is True for shape in shapes):  # which X-AnyLabeling writes
        found["difficult"] = 1
    masks = [_mask(shape, size, file) for shape in shapes if shape["shape_type"] == "mask"]
    if masks:
        drawn = [p.ravel().tolist() for p, s in zip(polygons, shapes) if s["shape_type"] != "mask"]
        if drawn:
            try:
                masks.append(decode_mask(drawn, *size))
            except ValueError as error:
                raise IONError(
                    f"{file} has an object whose mask cannot be drawn: {error}; correct it in "
                    "labelme."
                ) from error
        whole = np.asfortranarray(np.any(masks, axis=0), dtype=np.uint8)
        found["segmentation"] = mask_util.encode(whole)
    return found


def _corners(shape: dict[str, Any]) -> np.ndarray:
    points = shape["points"]
    if shape["shape_type"] in _OUTLINES:
        return points
    if shape["shape_type"] == "circle":
        angles = np.arange(_CIRCLE_CORNERS) * 2 * math.pi / _CIRCLE_CORNERS
        radius = math.dist(points[0], points[1])
        return points[0] + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    # The box of a mask names its last pixel.
    last = 1 if shape["shape_type"] == "mask" else 0
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0) + last
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])


def _mask(shape: dict[str, Any], size: tuple[int, int], file: str) -> np.ndarray:
    """A mask, which labelme stores as a picture of its box, drawn into the whole picture."""
    whole = np.zeros(size, dtype=bool)
    x, y = (int(v) for v in shape["points"].min(axis=0))
    data = _decode(shape.get("mask"), file)
    try:
        stored = open_picture(io.BytesIO(data))
        mask = np.asarray(stored.convert("L")) > 0
    except DECODE_ERRORS as error:
        raise IONError(f"{file} has a mask that is no picture ({error}); draw it anew.") from error
    mask = mask[max(-y, 0) :, max(-x, 0) :]
    x, y = max(x, 0), max(y, 0)
    part = whole[y : y + mask.shape[0], x : x + mask.shape[1]]
    part |= mask[: part.shape[0], : part.shape[1]]
    return whole


def _shapes(content: dict[str, Any], file: str) -> Iterator[dict[str, Any]]:
    """The shapes that stand for objects, checked."""
    for number, shape in enumerate(content["shapes"], 1):
        fault = _fault(shape)
        if fault:
            refuse(IONError(f"{file}: shape {number} {fault}; correct it in labelme."))
        elif shape["label"] not in _NO_CLASS:
            label, kind = clean_class_name(shape["label"]), shape.get("shape_type") or "polygon"
            points = np.asarray(shape["points"], dtype=np.float64)
            if kind == "mask":  # whose box has whole pixels, to which labelme rounds
                points = points.round()
            yield {**shape, "label": label, "shape_type": kind, "points": points}


def _fault(shape: Any) -> str:
    """What is wrong with a shape, as a clause; "" if nothing is."""
    label = shape.get("label") if isinstance(shape, dict) else None
    if not isinstance(label, str) or not clean_class_name(label):
        return "has no 'label'"
    if not isinstance(shape.get("shape_type") or "", str):
        return f"has the 'shape_type' {shape['shape_type']!r:.50}"
    points = shape.get("points")
    least = _POINTS.get(shape.get("shape_type") or "polygon", 1)
    if not isinstance(points, list) or len(points) < least:
        return f"has not the {least} or more 'points' of its kind"
    if not all(isinstance(p, list) and len(p) == 2 and all(map(is_number, p)) for p in points):
        return "has 'points' that are not pairs of numbers"
    return ""


def _read(file: str) -> dict[str, Any]:
    content = read_json(file, "save it anew")
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise IONError(f"{file} is no file of labelme: it has no list of 'shapes'; move it away.")
    return content


def _picture(content: dict[str, Any], file: str) -> str:
    """The picture beside the file, or else the one inside, as a file in the cache."""
    named, data = content.get("imagePath"), content.get("imageData")
    names = [str(named)]
    if not isinstance(data, str):  # of a path on another machine, the last part may be here
        names.append(ntpath.basename(names[0]))
    for place in (named_file(os.path.dirname(file), name) for name in names):
        if named and os.path.isfile(place) and not place.endswith(".json"):
            return place
    if not isinstance(data, str):
        raise IONError(
            f"{file} names the picture {named!r}, which is not there, and holds none; put it "
            "beside the file, or correct 'imagePath'.",
            rule="missing-picture",
        )
    picture = _decode(data, file)
    folder = os.path.join(get_cache_dir(), "ion_d2", hashlib.sha256(picture).hexdigest())
    suffix = ".png" if picture.startswith(b"\x89PNG") else ".jpg"
    # The name leads back to the file, in messages and in what the set is converted to.
    cached = os.path.join(folder, os.path.splitext(os.path.basename(file))[0] + suffix)
    if not os.path.exists(cached):
        own = os.path.join(folder, f"{os.getpid()}")  # each process of a training reads the labels
        write_result(own, lambda opened: opened.write(picture), "make room")
        os.replace(own, cached)
    return cached


def _decode(text: Any, file: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError) as error:
        raise IONError(
            f"{file} holds a picture or mask that is not in base64 ({error}); save it anew in "
            "labelme."
        ) from error
