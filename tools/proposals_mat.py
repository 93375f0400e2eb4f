"""Proposals in Matlab files, as Selective Search, MCG and EdgeBoxes were published.

Pixels are counted from 1, right and bottom inclusive. A file of an image set holds a cell array
with an entry per image; a folder holds a file per image, ``ID.mat``. Boxes without scores come in
order, the best first.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Union

import numpy as np

from ion_d2.data.folders import find_files
from ion_d2.data.matlab import load_mat
from ion_d2.data.proposals.proposal_file import ImageId, Proposals, rank_scores
from ion_d2.errors import IONError

_FORMS = {"folder": "a folder with one file per image", "file": "one file for an image set"}


class _Layout(NamedTuple):
    """How programs store boxes."""

    forms: tuple[str, ...]  # of _FORMS
    columns: tuple[int, int, int, int]  # those of x, y, then x, y or width, height
    boxes: tuple[str, ...] = ("boxes",)  # names of the array
    scores: tuple[str, ...] = ()
    scored: bool = False  # whether scores must be there
    sizes: bool = False  # width and height instead of right and bottom, then the score


_LAYOUTS = {
    # Fast R-CNN's ``selective_search_data``, with a cell array ``images`` of names.
    "fast-rcnn": _Layout(("file",), (1, 0, 3, 2)),
    # As MCG's authors give them, old and new.
    "mcg": _Layout(
        ("folder",), (1, 0, 3, 2), ("boxes", "bboxes"), ("scores", "bboxes_scores"), scored=True
    ),
    # Hosang et al.'s boxes of COCO, and Fast R-CNN's ``selective_search_IJCV_data``.
    "xyxy": _Layout(("folder",), (0, 1, 2, 3), scores=("scores",)),
    # As EdgeBoxes' own program saves them.
    "edge-boxes": _Layout(("folder", "file"), (0, 1, 2, 3), ("bbs",), sizes=True),
}
MAT_LAYOUTS = tuple(_LAYOUTS)
# An image, its boxes and scores as stored, and where they are from, for messages.
_Image = tuple[ImageId, np.ndarray, Union[np.ndarray, None], str]


def read_mat(
    path: str | os.PathLike, layout: str, ids: Sequence[ImageId] | None = None
) -> Proposals:
    """Read proposals from a Matlab file, or from a folder (and those in it) of one file per image.

    In a folder, an image's id is the name of its file without suffix, or the path below the folder
    if two files share a name or ``ids`` are given.

    Args:
        path: the file or folder.
        layout: one of ``MAT_LAYOUTS``.
        ids: the image ids in the order of the file, for a file that does not name its images.

    Raises:
        IONError: something is missing, unreadable or of another layout.
    """
    path, forms = os.fspath(path), _LAYOUTS[layout].forms
    form = "folder" if os.path.isdir(path) else "file"
    if form not in forms:
        raise IONError(
            f"{path} is not {_FORMS[forms[0]]}, which layout {layout} is; give that, or another "
            "layout."
        )
    images = (
        _folder(path, layout, by_path=ids is not None)
        if form == "folder"
        else _image_set(path, layout, ids)
    )
    converted = ((image_id, *_convert(b, s, layout, told)) for image_id, b, s, told in images)
    return Proposals.from_images(converted, path)


def _folder(path: str, layout: str, by_path: bool) -> Iterator[_Image]:
    kind, files = _LAYOUTS[layout], sorted(map(Path, find_files(path, (".mat",))))
    if not files:
        raise IONError(f"Folder {path} holds no .mat file; give the folder with the proposals.")
    by_path = by_path or len({file.stem for file in files}) < len(files)
    for file in files:
        content = load_mat(str(file))
        boxes = _array(content, kind.boxes, layout, str(file))
        scored = kind.scored or any(name in content for name in kind.scores)
        scores = _array(content, kind.scores, layout, str(file)) if scored else None
        name = file.relative_to(path).with_suffix("").as_posix() if by_path else file.stem
        yield name, boxes, scores, str(file)


def _image_set(path: str, layout: str, ids: Sequence[ImageId] | None) -> Iterator[_Image]:
    content = load_mat(path)
    cells = _array(content, _LAYOUTS[layout].boxes, layout, path)
    if cells.dtype != object:
        raise IONError(
            f"{path}: the boxes are an array of shape {cells.shape}, but layout {layout} has a "
            "cell array with one entry per image; give the file of an image set, or another layout."
        )
    ids = _image_names(content) or ids
    if ids is None:
        raise IONError(
            f"{path} has no cell array 'images' with the names of its images; add --dataset, the "
            "dataset whose images they are, in its order."
        )
    if len(ids) != cells.size:
        raise IONError(
            f"{path} has boxes of {cells.size} images, but there are {len(ids)} image names; it "
            "belongs to another image set, or is incomplete."
        )
    for image_id, cell in zip(ids, cells.ravel()):
        yield image_id, cell, None, f"{path}, image '{image_id}'"


def _array(content: dict[str, Any], names: Sequence[str], layout: str, path: str) -> np.ndarray:
    for name in names:
        if isinstance(content.get(name), np.ndarray):
            return content[name]
    there = ", ".join(sorted(content)) or "nothing"
    raise IONError(
        f"{path} is of an unknown layout: it holds {there}, but layout {layout} has '{names[0]}'; "
        "choose the layout that fits, see `--help`."
    )


def _convert(
    boxes: np.ndarray, scores: np.ndarray | None, layout: str, told: str
) -> tuple[np.ndarray, np.ndarray]:
    """From 1-based and inclusive to 0-based and exclusive corners, with their scores."""
    kind = _LAYOUTS[layout]
    columns = 5 if kind.sizes else 4
    shaped = not boxes.size or (boxes.ndim == 2 and boxes.shape[1] == columns)
    if boxes.dtype.kind not in "uif" or not shaped:
        raise IONError(
            f"{told} is of an unknown layout: the boxes are an array of shape {boxes.shape} and "
            f"type {boxes.dtype}, but layout {layout} has {columns} numbers a box."
        )
    if scores is not None and scores.dtype.kind not in "uif":
        raise IONError(
            f"{told} is of an unknown layout: the scores are of type {scores.dtype}, not numbers."
        )
    # Before any sum: the published files are of integers without a sign.
    numbers = boxes.astype(np.float64).reshape(-1, columns)
    corners = numbers[:, kind.columns]
    corners[:, :2] -= 1
    if kind.sizes:
        scores = numbers[:, 4]
        corners[:, 2:] += corners[:, :2]
    return corners, rank_scores(len(corners)) if scores is None else scores


def _image_names(content: dict[str, Any]) -> list[str] | None:
    names = content.get("images")
    if not isinstance(names, np.ndarray) or names.dtype != object:
        return None
    return [str(np.asarray(name).reshape(-1)[0]) if np.size(name) else "" for name in names.ravel()]
