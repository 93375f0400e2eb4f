"""From any format to a dataset's proposals, and several sets to one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from ion_d2.data.proposals.attach import match_proposals
from ion_d2.data.proposals.mat import MAT_LAYOUTS, read_mat
from ion_d2.data.proposals.proposal_file import ImageId, Proposals, rank_scores, read_proposals
from ion_d2.data.proposals.text import read_csv, read_json
from ion_d2.errors import IONError

_READERS = {"csv": read_csv, "json": read_json, "detectron": read_proposals}
FORMATS = (*_READERS, *MAT_LAYOUTS)
"""Names of the formats."""
BY_FILE = ("mcg", "xyxy", "edge-boxes")
"""Those that, in a folder, name a file after each image's file."""


def read_any(path: str, file_format: str, ids: Sequence[ImageId] | None = None) -> Proposals:
    """Read proposals in one of ``FORMATS``.

    Args:
        path: file or folder.
        file_format: its format; those of Matlab are told in ``ion_d2.data.proposals.mat``.
        ids: image ids in the order of a file that does not tell them.

    Returns:
        The boxes.

    Raises:
        IONError: it cannot be read or is of another format.
    """
    if file_format in _READERS:
        return _READERS[file_format](path)
    return read_mat(path, file_format, ids)


def for_dataset(
    proposals: Proposals,
    dicts: Sequence[dict[str, Any]],
    name: str,
    fill: bool = False,
    by_file: bool = False,
) -> Proposals:
    """Keep the images of a dataset, in its order and called as it calls them.

    Other programs call an image by its file ("COCO_train2014_000000000009") where Detectron2's
    COCO datasets have a number. Where a name may be either, of two images, it is refused.

    Args:
        proposals: boxes of at least these images.
        dicts: Detectron2 dataset dicts.
        name: of the dataset, for messages.
        fill: whether an image that is not there has no boxes, instead of being an error.
        by_file: whether the proposals call images by their files, and never by a number.

    Returns:
        The boxes of the dataset.

    Raises:
        IONError: none of the images is there, or one is missing or could be two, or a box lies
            outside.
    """
    known = {str(record["image_id"]): record["image_id"] for record in dicts}
    files = {_stem(record["file_name"]): record["image_id"] for record in dicts}
    first, second = (files, known) if by_file else (known, files)
    ids = [first.get(str(i), second.get(str(i), i)) for i in proposals.ids]
    both = files.keys() & known.keys()
    odd = [i for i in proposals.ids if str(i) in both and files[str(i)] != known[str(i)]]
    if odd and not by_file:
        raise IONError(
            f"{proposals.source} has boxes of '{odd[0]}', which in {name} is the id of one image "
            "and the file name of another; give a folder of files named after the images."
        )
    renamed = Proposals(ids, proposals.boxes, proposals.scores, proposals.source)
    if fill and not known.keys().isdisjoint(map(str, ids)):
        renamed = _filled(renamed, list(known.values()))
    found = match_proposals(renamed, dicts, name)
    return Proposals(
        [record["image_id"] for record in dicts],
        [renamed.boxes[i] for i in found],
        [renamed.scores[i] for i in found],
        proposals.source,
    )


def merge_proposals(several: Sequence[Proposals]) -> Proposals:
    """Put the boxes of several programs together ("SS+EB" of Tables 1 and 2).

    Their scores do not compare, so the boxes alternate: the best of each, the second of each, ...
    A box that is there already is left out.

    Args:
        several: proposals of the same images.

    Returns:
        The boxes, scored by rank.

    Raises:
        IONError: an image is not in all of them.
    """
    first, indices = several[0], [proposals.index() for proposals in several]
    for proposals, index in zip(several, indices):
        odd = sorted(indices[0].keys() ^ index.keys())
        if odd:
            raise IONError(
                f"Proposal files {first.source} and {proposals.source} are of different images: "
                f"'{odd[0]}' is in one of them only; merge files of the same image set."
            )
    boxes = []
    for image_id in indices[0]:
        ranked = [_ranked(p, index[image_id]) for p, index in zip(several, indices)]
        boxes.append(_alternate(ranked))
    return Proposals(list(first.ids), boxes, [rank_scores(len(b)) for b in boxes])


def _ranked(proposals: Proposals, i: int) -> np.ndarray:
    return proposals.boxes[i][np.argsort(-proposals.scores[i], kind="stable")]


def _alternate(ranked: Sequence[np.ndarray]) -> np.ndarray:
    boxes = np.concatenate(ranked)
    ranks = np.concatenate([np.arange(len(b)) for b in ranked])
    boxes = boxes[np.argsort(ranks, kind="stable")]
    _, first = np.unique(boxes, axis=0, return_index=True)
    return boxes[np.sort(first)]


def _filled(proposals: Proposals, ids: Sequence[ImageId]) -> Proposals:
    there = proposals.index()
    new = [image_id for image_id in ids if str(image_id) not in there]
    return Proposals(
        [*proposals.ids, *new],
        [*proposals.boxes, *(np.zeros((0, 4), np.float32) for _ in new)],
        [*proposals.scores, *(np.zeros(0, np.float32) for _ in new)],
        proposals.source,
    )


def _stem(file_name: str) -> str:
    return os.path.splitext(os.path.basename(file_name))[0]
