"""Proposals in plain text: CSV and JSON."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator
from typing import Any, Union

import numpy as np

from ion_d2.data.proposals.proposal_file import ImageId, Proposals, rank_scores
from ion_d2.errors import IONError

_COLUMNS = ("image_id", "x0", "y0", "x1", "y1")
# An image, the corners of a box, and its score where there is one.
Row = tuple[ImageId, list[float], Union[float, None]]


def read_csv(path: str | os.PathLike) -> Proposals:
    """Read proposals from a CSV file, one box a row.

    Args:
        path: a file with the header ``image_id,x0,y0,x1,y1``, in any order, and ``score`` where
            boxes have one; pixels from 0, right and bottom exclusive. Without scores, boxes of an
            image count as sorted, the best first.

    Returns:
        The boxes, images in the order in which they first occur.

    Raises:
        IONError: it cannot be read, lacks a column, or a value is not a number.
    """
    path = os.fspath(path)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise IONError(
                    f"{path} has no column {', '.join(missing)} in its first line; it must be "
                    f"{','.join(_COLUMNS)} and, where boxes have one, score."
                )
            return _collect(_csv_rows(reader, path), path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise IONError(f"{path} cannot be read as CSV ({error}); replace it.") from error


def read_json(path: str | os.PathLike) -> Proposals:
    """Read proposals from a JSON file.

    Args:
        path: either a list in COCO's format of results (``[{"image_id": 42, "bbox": [x, y, width,
            height], "score": 0.5}, ...]``; other keys do not count) or a mapping
            ``{"42": [[x0, y0, x1, y1, score], ...], ...}``; scores may be left out as in
            :func:`read_csv`.

    Returns:
        The boxes, images in the order in which they first occur.

    Raises:
        IONError: it cannot be read or is of another layout.
    """
    path = os.fspath(path)
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError) as error:
        raise IONError(f"{path} is not readable JSON ({error}); replace it.") from error
    if isinstance(content, dict):
        return _collect(_mapping_rows(content, path), path, images=content)
    if isinstance(content, list):
        return _collect(_coco_rows(content, path), path)
    raise IONError(
        f"{path} holds a {type(content).__name__} instead of a list of COCO results or a mapping "
        "from image ids to boxes; write it in one of these forms."
    )


def _csv_rows(reader: csv.DictReader, path: str) -> Iterator[Row]:
    for row in reader:
        told = f"{path}, line {reader.line_num}, image '{row['image_id']}'"
        corners = _numbers([row[name] for name in _COLUMNS[1:]], told)
        score = row.get("score")
        yield row["image_id"], corners, None if score is None else _numbers([score], told)[0]


def _coco_rows(content: list, path: str) -> Iterator[Row]:
    for number, entry in enumerate(content):
        try:
            image_id, bbox, score = entry["image_id"], entry["bbox"], entry.get("score")
        except (KeyError, TypeError, AttributeError) as error:
            raise IONError(
                f"{path}, entry {number}: it is not a COCO result with 'image_id' and 'bbox'; "
                "correct it."
            ) from error
        told = f"{path}, entry {number}, image {image_id!r}"
        x, y, width, height = _fields(bbox, 4, told)
        yield image_id, [x, y, x + width, y + height], _score(score, told)


def _mapping_rows(content: dict[str, Any], path: str) -> Iterator[Row]:
    for image_id, rows in content.items():
        told = f"{path}, image '{image_id}'"
        if not isinstance(rows, list):
            raise IONError(f"{told}: its value is not a list of boxes; correct it.")
        for row in rows:
            scored = isinstance(row, list) and len(row) == 5
            numbers = _fields(row, 5 if scored else 4, told)
            yield image_id, numbers[:4], numbers[4] if scored else None


def _score(value: Any, told: str) -> float | None:
    return None if value is None else _numbers([value], told)[0]


def _fields(row: Any, length: int, told: str) -> list[float]:
    if not isinstance(row, list) or len(row) != length:
        raise IONError(f"{told}: {json.dumps(row)} is not a box of {length} numbers; correct it.")
    return _numbers(row, told)


def _numbers(values: Iterable[Any], told: str) -> list[float]:
    """The values as numbers; the check whether they are finite comes with all the boxes."""
    try:
        return [float(value) for value in values]
    except (TypeError, ValueError) as error:
        raise IONError(f"{told}: a coordinate or score is not a number ({error}).") from error


def _collect(rows: Iterable[Row], path: str, images: Iterable[ImageId] = ()) -> Proposals:
    """Group the boxes by image; ``images`` are there even without boxes."""
    boxes: dict[ImageId, list[list[float]]] = {image_id: [] for image_id in images}
    scores: dict[ImageId, list[float | None]] = {image_id: [] for image_id in images}
    for image_id, corners, score in rows:
        boxes.setdefault(image_id, []).append(corners)
        scores.setdefault(image_id, []).append(score)
    return Proposals(
        list(boxes),
        [np.array(b, dtype=np.float32).reshape(-1, 4) for b in boxes.values()],
        [_settled(s, image_id, path) for image_id, s in scores.items()],
        source=path,
    )


def _settled(scores: list[float | None], image_id: ImageId, path: str) -> np.ndarray:
    """Ranks for an image whose boxes have no scores."""
    unscored = scores.count(None)
    if unscored == len(scores):
        return rank_scores(len(scores))
    if unscored:
        raise IONError(
            f"{path}, image {image_id!r}: {unscored} of its {len(scores)} boxes have no score; "
            "give one to all or to none."
        )
    return np.array(scores, dtype=np.float32)
