"""Proposals in plain text: CSV and JSON."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

import numpy as np

from ion_d2.data import plain_files
from ion_d2.data.coco_fields import as_id
from ion_d2.data.proposals.proposal_file import ImageId, Proposals, rank_scores
from ion_d2.errors import IONError

_COLUMNS = ("image_id", "x0", "y0", "x1", "y1")
# Where a box stands in the file, its image, and its corners and score (if any), not yet checked.
_Row = tuple[str, ImageId, list[Any]]


def read_csv(path: str | os.PathLike) -> Proposals:
    """Read proposals from a CSV file, one box a row; images in the order in which they first occur.

    The header has ``image_id,x0,y0,x1,y1``, in any order, and ``score`` where boxes have one;
    pixels from 0, right and bottom exclusive. Without scores, the boxes of an image count as
    sorted, the best first.

    Raises:
        IONError: it cannot be read, lacks a column, or a value is not a number.
    """
    path = os.fspath(path)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            return _collect(_csv_rows(file, path), path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise IONError(f"{path} cannot be read as CSV ({error}); replace it.") from error


def read_json(path: str | os.PathLike) -> Proposals:
    """Read proposals from a JSON file; order of images and missing scores as :func:`read_csv`.

    It holds either a list in COCO's format of results (``[{"image_id": 42, "bbox": [x, y, width,
    height], "score": 0.5}, ...]``; other keys do not count) or a mapping
    ``{"42": [[x0, y0, x1, y1, score], ...], ...}``.

    Raises:
        IONError: it cannot be read or is of another layout.
    """
    path = os.fspath(path)
    content = plain_files.read_json(path)
    if isinstance(content, dict):
        return _collect(_mapping_rows(content, path), path, images=content)
    if isinstance(content, list):
        return _collect(_coco_rows(content, path), path)
    raise IONError(
        f"{path} holds a {type(content).__name__} instead of a list of COCO results or a mapping "
        "from image ids to boxes; write it in one of these forms."
    )


def _csv_rows(file: TextIO, path: str) -> Iterator[_Row]:
    reader = csv.DictReader(file)
    missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise IONError(
            f"{path} has no column {', '.join(missing)} in its first line; it must be "
            f"{','.join(_COLUMNS)} and, where boxes have one, score."
        )
    for row in reader:
        numbers = [row[name] for name in (*_COLUMNS[1:], "score") if name in row]
        yield f"line {reader.line_num}", row["image_id"], numbers


def _coco_rows(content: list[Any], path: str) -> Iterator[_Row]:
    for number, entry in enumerate(content):
        try:
            image_id, (x, y, width, height) = as_id(entry["image_id"]), map(float, entry["bbox"])
            score = [entry["score"]] if entry.get("score") is not None else []
            if image_id is None:
                raise ValueError("the image_id is neither a whole number nor text")
        except (AttributeError, LookupError, TypeError, ValueError, OverflowError) as error:
            raise IONError(
                f"{path}, entry {number}: it is not a COCO result with a number or text in "
                "'image_id' and four numbers in 'bbox'; correct it."
            ) from error
        yield f"entry {number}", image_id, [x, y, x + width, y + height, *score]


def _mapping_rows(content: dict[str, Any], path: str) -> Iterator[_Row]:
    for image_id, boxes in content.items():
        for box in boxes if isinstance(boxes, list) else [boxes]:
            if not isinstance(box, list) or len(box) not in (4, 5):
                raise IONError(
                    f"{path}, image '{image_id}': {json.dumps(box)} is not a box of 4 numbers, or "
                    "5 with a score; correct it."
                )
            yield "its boxes", image_id, box


def _collect(rows: Iterable[_Row], path: str, images: Iterable[ImageId] = ()) -> Proposals:
    """Group the boxes by image; ``images`` are there even without boxes."""
    boxes: dict[ImageId, list[list[float]]] = {image_id: [] for image_id in images}
    for place, image_id, row in rows:
        try:
            boxes.setdefault(image_id, []).append([float(value) for value in row])
        except (TypeError, ValueError, OverflowError) as error:
            raise IONError(
                f"{path}, {place}, image {image_id!r}: a coordinate or score is not a number "
                f"({error}); correct it."
            ) from error
    return Proposals.from_images((_image(path, *item) for item in boxes.items()), path)


def _image(
    path: str, image_id: ImageId, rows: list[list[float]]
) -> tuple[ImageId, np.ndarray, np.ndarray]:
    """An image with its boxes and their scores, or their ranks if they have none."""
    unscored = sum(len(row) == 4 for row in rows)
    if unscored not in (0, len(rows)):
        raise IONError(
            f"{path}, image {image_id!r}: {unscored} of its {len(rows)} boxes have no score; give "
            "one to all or to none."
        )
    scores = rank_scores(len(rows)) if unscored else np.array([row[4] for row in rows])
    return image_id, np.array([row[:4] for row in rows]), scores
