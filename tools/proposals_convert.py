"""From any format to a dataset's proposals, and several sets to one."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from proposals_mat import MAT_LAYOUTS, read_mat
from proposals_text import read_csv, read_json

from ion_d2.data.folders import composed, file_stem, own_names, pictures_called
from ion_d2.data.proposals.attach import match_proposals
from ion_d2.data.proposals.proposal_file import ImageId, Proposals, rank_scores, read_proposals
from ion_d2.errors import IONError

_READERS = {"csv": read_csv, "json": read_json, "detectron": read_proposals}
FORMATS = (*_READERS, *MAT_LAYOUTS)
"""Names of the formats."""
BY_FILE = ("mcg", "xyxy", "edge-boxes")
"""Those that, in a folder, name a file after each image's file."""


def read_any(path: str, file_format: str, ids: Sequence[ImageId] | None = None) -> Proposals:
    """Read a file or folder of proposals of one of the ``FORMATS``.

    ``ids`` are image ids in the order of a file that does not name its images; see
    :mod:`proposals_mat`.

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
    """Keep the images of a dataset, in its order and under its ids.

    Other programs call an image by its file ("COCO_train2014_000000000009") where Detectron2's
    COCO datasets have a number. A name that is the id of one image and the file of another is
    refused.

    Args:
        proposals: boxes of at least these images.
        dicts, name: the dataset's dicts, and its name for messages.
        fill: whether an image without an entry gets no boxes, instead of being an error.
        by_file: whether the proposals call images by their files, and never by a number.

    Raises:
        IONError: none of the images is there, or one is missing or could be two, or a box lies
            outside.
    """
    known = {str(record["image_id"]): record["image_id"] for record in dicts}
    files = _called_by_file(proposals, dicts, name, by_file)
    both = [i for i in files if i in known and known[i] != files[i]]
    if both and not by_file:
        raise IONError(
            f"{proposals.source} has boxes of '{both[0]}', which in {name} is the id of one image "
            "and the file name of another; give a folder of files named after the images."
        )
    names = {**known, **files} if by_file else {**files, **known}
    images = [(names.get(str(image_id), image_id), b, s) for image_id, b, s in proposals.images()]
    there = {str(image[0]) for image in images}
    if fill and there & known.keys():
        images += [(known[i], np.zeros((0, 4)), np.zeros(0)) for i in known if i not in there]
    renamed = Proposals.from_images(images, proposals.source)
    found = match_proposals(renamed, dicts, name)
    return Proposals.from_images((images[i] for i in found), proposals.source)


def _called_by_file(
    proposals: Proposals, dicts: Sequence[dict[str, Any]], name: str, by_file: bool
) -> dict[str, ImageId]:
    """The ids of the images that proposals call by their files, with or without folders."""
    names = {composed(str(image_id)): str(image_id) for image_id in proposals.ids}
    stems = [file_stem(record["file_name"]) for record in dicts]
    called = pictures_called(names, stems)
    for text, places in called.items():
        if len(places) > 1:
            first, second = (dicts[place]["file_name"] for place in places[:2])
            raise IONError(
                f"{proposals.source} has boxes of '{names[text]}', which in {name} could be "
                f"{first} or {second}; name the images with their folders, or by their ids."
            )
    own = own_names(called)
    if by_file:
        # In folders of its own: the name alone must do, where it is that of one file and one image.
        last = Counter(map(posixpath.basename, names))
        rest = {posixpath.basename(text): text for text in names if text not in own.values()}
        once = [text for text in rest if last[text] == 1]
        alone = own_names(pictures_called(once, map(posixpath.basename, stems)))
        own = {**{place: rest[text] for place, text in alone.items()}, **own}
    return {names[text]: dicts[place]["image_id"] for place, text in own.items()}


def merge_proposals(several: Sequence[Proposals]) -> Proposals:
    """Put the boxes of several programs together ("SS+EB" of Tables 1 and 2).

    Scores of different programs do not compare, so the boxes alternate: the best of each, the
    second of each, ... Repeated boxes are left out, and the result is scored by rank.

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
    merged = []
    for image_id in first.ids:
        places = [index[str(image_id)] for index in indices]
        boxes = _alternate([p.ranked(i)[0] for p, i in zip(several, places)])
        merged.append((image_id, boxes, rank_scores(len(boxes))))
    return Proposals.from_images(merged)


def _alternate(ranked: Sequence[np.ndarray]) -> np.ndarray:
    boxes = np.concatenate(ranked)
    ranks = np.concatenate([np.arange(len(b)) for b in ranked])
    boxes = boxes[np.argsort(ranks, kind="stable")]
    _, first = np.unique(boxes, axis=0, return_index=True)
    return boxes[np.sort(first)]
