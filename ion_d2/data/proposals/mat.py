"""Proposals in Matlab files, as Selective Search, MCG and EdgeBoxes were published.

Layouts, all with pixels counted from 1 and right and bottom inclusive:

- ``fast-rcnn``: one file for an image set, as Fast R-CNN's ``selective_search_data``: a cell array
  ``boxes`` of (N, 4) arrays y1, x1, y2, x2 and a cell array ``images`` of names. Boxes come in
  order, without scores. Where ``images`` is absent, they are those of the dataset, in its order.
- ``mcg``: a folder with a file per image, ``ID.mat``, as MCG's authors give them: ``boxes`` (N, 4)
  y1, x1, y2, x2 and ``scores`` (N,); also under the names ``bboxes`` and ``bboxes_scores``.
- ``xyxy``: a folder as before, but x1, y1, x2, y2, with or without ``scores``: the Selective
  Search, EdgeBoxes and MCG boxes of Hosang et al. for COCO, and Fast R-CNN's
  ``selective_search_IJCV_data``.
- ``edge-boxes``: what EdgeBoxes' own program saves: ``bbs`` (N, 5) x, y, width, height, score; a
  folder with a file per image, or one file with a cell array ``bbs`` in the order of the dataset.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from ion_d2.data.proposals.proposal_file import ImageId, Proposals, rank_scores
from ion_d2.errors import IONError

# scipy's reader reports damage in all these ways.
_READ_ERRORS = (
    MatReadError, OSError, ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError,
    MemoryError, struct.error, zlib.error,
)  # fmt: skip


class _Layout(NamedTuple):
    """Names of the arrays, and the columns that are x, y, then x, y or width, height."""

    boxes: tuple[str, ...]
    scores: tuple[str, ...]
    columns: tuple[int, int, int, int]
    sizes: bool = False  # width and height instead of right and bottom
    per_set: bool = False  # one file for all images is possible


_LAYOUTS = {
    "fast-rcnn": _Layout(("boxes",), (), (1, 0, 3, 2), per_set=True),
    "mcg": _Layout(("boxes", "bboxes"), ("scores", "bboxes_scores"), (1, 0, 3, 2)),
    "xyxy": _Layout(("boxes",), ("scores",), (0, 1, 2, 3)),
    "edge-boxes": _Layout(("bbs",), (), (0, 1, 2, 3), sizes=True, per_set=True),
}
MAT_LAYOUTS = tuple(_LAYOUTS)


def read_mat(
    path: str | os.PathLike, layout: str, ids: Sequence[ImageId] | None = None
) -> Proposals:
    """Read proposals from a Matlab file, or from a folder (and those in it) of one file per image.

    Args:
        path: the file or folder.
        layout: one of ``MAT_LAYOUTS``, see the module.
        ids: the image ids in the order of the file, for a file that does not tell them.

    Returns:
        The boxes, from 0 and exclusive; an image of a folder is called as its file.

    Raises:
        IONError: something is missing, unreadable or of another layout.
    """
    path = os.fspath(path)
    kind = _LAYOUTS[layout]
    if os.path.isdir(path):
        if layout == "fast-rcnn":
            raise IONError(
                f"{path} is a folder, but layout fast-rcnn is one file per image set; choose "
                "another of the layouts, which `--help` tells."
            )
        return _read_folder(path, layout, kind)
    if not kind.per_set:
        raise IONError(
            f"{path} is not a folder, but layout {layout} has a folder with one file per image; "
            "give the folder, or another layout."
        )
    return _read_set(path, layout, kind, ids)


def _read_folder(path: str, layout: str, kind: _Layout) -> Proposals:
    files = sorted(Path(path).rglob("*.mat"))
    if not files:
        raise IONError(f"Folder {path} holds no .mat file; give the folder with the proposals.")
    all_boxes, all_scores = [], []
    for file in files:
        content = _load(str(file))
        boxes, scores = _image(content, layout, kind, str(file))
        all_boxes.append(boxes)
        all_scores.append(scores)
    return Proposals([file.stem for file in files], all_boxes, all_scores, source=path)


def _read_set(path: str, layout: str, kind: _Layout, ids: Sequence[ImageId] | None) -> Proposals:
    content = _load(path)
    cells = _array(content, kind.boxes, layout, path)
    if cells.dtype != object:
        raise IONError(
            f"{path}: '{kind.boxes[0]}' is an array of shape {cells.shape}, but layout {layout} "
            "has a cell array with one entry per image; give the file of an image set, or another "
            "layout."
        )
    cells = cells.ravel()
    ids = _image_names(content) or ids
    if ids is None:
        raise IONError(
            f"{path} has no cell array 'images' with the names of its images; add --dataset, the "
            "dataset whose images they are, in its order."
        )
    if len(ids) != len(cells):
        raise IONError(
            f"{path} has boxes of {len(cells)} images, but there are {len(ids)} image names; it "
            "belongs to another image set, or is incomplete."
        )
    pairs = [_convert(c, None, layout, kind, f"{path}, image '{i}'") for c, i in zip(cells, ids)]
    return Proposals(list(ids), [b for b, _ in pairs], [s for _, s in pairs], source=path)


def _load(path: str) -> dict[str, Any]:
    try:
        return loadmat(path, appendmat=False)
    except NotImplementedError as error:
        raise IONError(
            f"{path} is in Matlab's format 7.3 (HDF5), which is not read here; in Matlab, load it "
            "and save it again with the option '-v7'."
        ) from error
    except _READ_ERRORS as error:
        raise IONError(
            f"{path} cannot be read as a Matlab file ({error}); fetch or make it again."
        ) from error


def _array(content: dict[str, Any], names: Sequence[str], layout: str, path: str) -> np.ndarray:
    for name in names:
        if isinstance(content.get(name), np.ndarray):
            return content[name]
    there = ", ".join(sorted(key for key in content if not key.startswith("__"))) or "nothing"
    raise IONError(
        f"{path} is of an unknown layout: it holds {there}, but layout {layout} has "
        f"'{names[0]}'; choose the layout that fits, which `--help` tells."
    )


def _image(
    content: dict[str, Any], layout: str, kind: _Layout, path: str
) -> tuple[np.ndarray, np.ndarray]:
    boxes = _array(content, kind.boxes, layout, path)
    scores = next((content[name] for name in kind.scores if name in content), None)
    if scores is None and layout == "mcg":
        _array(content, kind.scores, layout, path)
    return _convert(boxes, scores, layout, kind, path)


def _convert(
    boxes: np.ndarray, scores: np.ndarray | None, layout: str, kind: _Layout, told: str
) -> tuple[np.ndarray, np.ndarray]:
    """From 1-based and inclusive to 0-based and exclusive corners, with their scores."""
    columns = 5 if kind.sizes else 4
    if boxes.dtype.kind not in "uif" or (
        boxes.size and (boxes.ndim != 2 or boxes.shape[1] != columns)
    ):
        raise IONError(
            f"{told} is of an unknown layout: the boxes are an array of shape {boxes.shape} and "
            f"type {boxes.dtype}, but layout {layout} has {columns} numbers a box."
        )
    # Before any sum: the published files are of integers without a sign.
    numbers = boxes.astype(np.float64).reshape(-1, columns)
    corners = numbers[:, kind.columns]
    corners[:, :2] -= 1
    if kind.sizes:
        scores = numbers[:, 4]
        corners[:, 2:] += corners[:, :2]
    if scores is None:
        scores = rank_scores(len(corners))
    return corners.astype(np.float32), np.asarray(scores, dtype=np.float32).reshape(-1)


def _image_names(content: dict[str, Any]) -> list[str] | None:
    names = content.get("images")
    if not isinstance(names, np.ndarray) or names.dtype != object:
        return None
    return [str(np.asarray(name).reshape(-1)[0]) if np.size(name) else "" for name in names.ravel()]
