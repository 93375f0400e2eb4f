"""Detectron2's proposal file: a pickled dict of lists, one entry an image."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Union

import numpy as np
from detectron2.structures import BoxMode

from ...errors import IONError
from ...files import write_result
from ..plain_pickle import load_plain_pickle

ImageId = Union[int, str]
_Image = tuple[ImageId, np.ndarray, np.ndarray]

# The keys, and those of Detectron (1).
_KEYS = (("ids", "indexes"), ("boxes", "boxes"), ("objectness_logits", "scores"))


@dataclass
class Proposals:
    """Precomputed boxes of a set of images.

    Attributes:
        ids: image ids, each once; Detectron2 compares them with those of a dataset as text.
        boxes: an (N, 4) float32 array per image: x0, y0, x1, y1 in pixels of the picture as it is
            shown (turned as its EXIF data asks), from 0, right and bottom exclusive.
        scores: an (N,) float32 array per image; higher is better.
        source: the file that they come from, for messages.
    """

    ids: list[ImageId]
    boxes: list[np.ndarray]
    scores: list[np.ndarray]
    source: str = "memory"

    def __post_init__(self) -> None:
        self.boxes = [np.asarray(b, dtype=np.float32).reshape(-1, 4) for b in self.boxes]
        self.scores = [np.asarray(s, dtype=np.float32).reshape(-1) for s in self.scores]
        seen: set[str] = set()
        for image_id, boxes, scores in self.images():
            fault = _fault(boxes, scores)
            if str(image_id) in seen:
                fault = "the image is there more than once; keep one entry of it"
            if fault:
                raise IONError(f"Proposal file {self.source}, image {image_id!r}: {fault}.")
            seen.add(str(image_id))

    @classmethod
    def from_images(cls, images: Iterable[_Image], source: str = "memory") -> Proposals:
        """Collect the id, boxes and scores of single images."""
        several = list(images)
        ids, boxes = [image_id for image_id, _, _ in several], [found for _, found, _ in several]
        return cls(ids, boxes, [scores for _, _, scores in several], source)

    def images(self) -> Iterator[_Image]:
        """The id, boxes and scores of each image."""
        return zip(self.ids, self.boxes, self.scores)

    def index(self) -> dict[str, int]:
        """Position of each image by its id as text."""
        return {str(image_id): i for i, image_id in enumerate(self.ids)}

    def ranked(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Boxes and scores of the image at a position, the best first."""
        order = np.argsort(-self.scores[i], kind="stable")
        return self.boxes[i][order], self.scores[i][order]


def rank_scores(number: int) -> np.ndarray:
    """Scores 0, -1, -2, ... (float32) for sorted boxes that have none.

    Detectron2 sorts proposals by score, and not stably, so that equal scores would mix them.
    """
    return -np.arange(number, dtype=np.float32)


def read_proposals(path: str | os.PathLike) -> Proposals:
    """Read a proposal file of Detectron2 or Detectron; what could run code is not unpickled.

    Raises:
        IONError: it is missing or damaged, is of another layout, names an image twice, or holds a
            box or score that is not a finite number or a box whose corners are exchanged.
    """
    path = os.fspath(path)
    content = _unpickle(path)
    ids, boxes, scores = (content.get(key, content.get(old)) for key, old in _KEYS)
    if ids is None or boxes is None or scores is None:
        raise IONError(
            f"Proposal file {path} has the keys {', '.join(map(str, content))}; Detectron2's "
            "proposal files have ids, boxes and objectness_logits: write it anew."
        )
    parts, lists = (ids, boxes, scores), (list, tuple, np.ndarray)
    if not all(isinstance(part, lists) and getattr(part, "ndim", 1) for part in parts):
        raise IONError(
            f"Proposal file {path} has ids, boxes or scores that are no list; write it anew."
        )
    odd = [image_id for image_id in ids if not isinstance(image_id, (str, int, np.integer))]
    if odd:
        kind = type(odd[0]).__name__
        raise IONError(f"Proposal file {path} has a {kind} as the id of an image; write it anew.")
    if not len(ids) == len(boxes) == len(scores):
        raise IONError(
            f"Proposal file {path} has {len(ids)} ids, {len(boxes)} arrays of boxes and "
            f"{len(scores)} of scores instead of one of each per image; write it anew."
        )
    mode = content.get("bbox_mode", BoxMode.XYXY_ABS)
    boxes = [_to_xyxy(b, mode, path, i) for b, i in zip(boxes, ids)]
    scores = [_to_numbers(s, path, i) for s, i in zip(scores, ids)]
    return Proposals(list(ids), boxes, scores, source=path)


def write_proposals(path: str | os.PathLike, proposals: Proposals) -> None:
    """Write a proposal file for Detectron2, atomically; its folder is made if need be.

    Raises:
        IONError: it cannot be written.
    """
    content = {
        "ids": proposals.ids,
        "boxes": proposals.boxes,
        "objectness_logits": proposals.scores,
        "bbox_mode": int(BoxMode.XYXY_ABS),
    }
    advice = "make room or choose another place"
    write_result(os.fspath(path), lambda file: pickle.dump(content, file, protocol=4), advice)


def _fault(boxes: np.ndarray, scores: np.ndarray) -> str | None:
    """What is wrong with the proposals of an image, as a clause."""
    if len(boxes) != len(scores):
        return f"there are {len(boxes)} boxes but {len(scores)} scores; give each box one"
    finite = {"score": np.isfinite(scores), "box": np.isfinite(boxes).all(axis=1)}
    for name, values in (("score", scores), ("box", boxes)):
        if not finite[name].all():
            bad = finite[name].argmin()
            return f"{name} {bad} is {values[bad]}, not a finite number; make the file anew"
    crossed = (boxes[:, 2:] < boxes[:, :2]).any(axis=1)
    if crossed.any():
        return (
            f"box {crossed.argmax()} is {boxes[crossed.argmax()].tolist()}, whose right or bottom "
            "lies before its left or top; give corners as x0, y0, x1, y1"
        )
    return None


def _unpickle(path: str) -> dict[str, Any]:
    try:
        content = load_plain_pickle(path)
    except OSError as error:
        raise IONError(
            f"Proposal file {path} cannot be read ({error.strerror}); give the path of a file that "
            "tools/make_proposals.py or tools/proposals.py wrote."
        ) from error
    except Exception as error:  # whatever a damaged pickle leads its reader to raise
        raise IONError(
            f"Proposal file {path} is not a readable pickle of lists and arrays ({error}); "
            "convert .mat, .csv and .json files with tools/proposals.py convert."
        ) from error
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise IONError(f"Proposal file {path} holds a {kind} instead of a dict; write it anew.")
    return content


def _to_numbers(scores: Any, path: str, image_id: ImageId) -> np.ndarray:
    try:
        return np.asarray(scores, dtype=np.float32)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise IONError(
            f"Proposal file {path}, image {image_id!r}: the scores are not numbers ({error}); "
            "write the file anew."
        ) from error


def _to_xyxy(boxes: Any, mode: Any, path: str, image_id: ImageId) -> np.ndarray:
    try:
        boxes = np.asarray(boxes, dtype=np.float32)
        if boxes.size == 0:
            return boxes.reshape(0, 4)
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise ValueError(f"an array of shape {boxes.shape}")
        return BoxMode.convert(boxes, BoxMode(mode), BoxMode.XYXY_ABS)
    except (ValueError, TypeError, ArithmeticError, AssertionError, RuntimeError) as error:
        raise IONError(
            f"Proposal file {path}, image {image_id!r}: the boxes are not an (N, 4) array of "
            f"numbers in a known bbox_mode ({error}); write the file anew."
        ) from error
