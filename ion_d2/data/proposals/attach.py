"""Proposals of a dataset: matched by image id, checked, and put into its dicts."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, get_detection_dataset_dicts
from detectron2.data.build import filter_images_with_only_crowd_annotations
from detectron2.structures import BoxMode

from ...errors import IONError
from .proposal_file import Proposals, read_proposals

# Programs differ on whether a box's right side is its last pixel or the one after it.
_TOLERANCE = 1.0

logger = logging.getLogger(__name__)


def proposal_files(cfg: CfgNode, split: str) -> tuple[str, ...] | None:
    """The proposal file of each dataset of a split ("TRAIN" or "TEST") of a config.

    Returns:
        The paths; None unless ``MODEL.LOAD_PROPOSALS``.

    Raises:
        IONError: there are more or fewer files than datasets, one does not exist, or the model
            needs proposals and loads none.
    """
    if not cfg.MODEL.LOAD_PROPOSALS:
        if cfg.MODEL.PROPOSAL_GENERATOR.NAME == "PrecomputedProposals":
            raise IONError(
                "MODEL.PROPOSAL_GENERATOR.NAME is PrecomputedProposals, but MODEL.LOAD_PROPOSALS "
                "is False; set it to True and name the files in DATASETS.PROPOSAL_FILES_TRAIN and "
                "DATASETS.PROPOSAL_FILES_TEST."
            )
        return None
    key, names = f"DATASETS.PROPOSAL_FILES_{split}", cfg.DATASETS[split]
    files = tuple(os.path.expanduser(path) for path in cfg.DATASETS[f"PROPOSAL_FILES_{split}"])
    if len(files) != len(names):
        raise IONError(
            f"{key} names {len(files)} files, but DATASETS.{split} has {len(names)} datasets; with "
            "MODEL.LOAD_PROPOSALS give one proposal file per dataset, in the same order."
        )
    for path in files:
        if not os.path.isfile(path):
            raise IONError(
                f"{key}: {path} does not exist; make it with tools/make_proposals.py, or convert "
                "boxes you have with tools/proposals.py convert."
            )
    return files


def check_proposals(cfg: CfgNode, train: bool) -> None:
    """Report faults of the proposal files before anything is trained; datasets are registered.

    Only the files for the evaluation after a training are read here: those that a run needs first
    are read along with the images. Files that are named but not loaded, as a base config may name
    them, are a warning.

    Raises:
        IONError: a file is missing or broken, or does not belong to its dataset.
    """
    if train:
        proposal_files(cfg, "TRAIN")
    keys = ("PROPOSAL_FILES_TRAIN", "PROPOSAL_FILES_TEST")
    named = [key for key in keys if cfg.DATASETS[key]]
    if named and not cfg.MODEL.LOAD_PROPOSALS:
        told = "DATASETS.%s names files that are not read: MODEL.LOAD_PROPOSALS is False."
        logger.warning(told, " and ".join(named))
    files = proposal_files(cfg, "TEST") or ()
    for name, path in zip(cfg.DATASETS.TEST, files if train else ()):
        match_proposals(read_proposals(path), DatasetCatalog.get(name), name)


def get_dicts(
    names: Sequence[str], *, filter_empty: bool, proposal_files: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """Detectron2's ``get_detection_dataset_dicts``, but checks the proposals.

    ``proposal_files`` has one per dataset.

    Raises:
        IONError: a proposal file is broken or does not belong to its dataset.
        AssertionError: no image is left.
    """
    if proposal_files is None:
        return get_detection_dataset_dicts(names, filter_empty=filter_empty)
    dicts: list[dict[str, Any]] = []
    for name, path in zip(names, proposal_files):
        part = get_detection_dataset_dicts([name], filter_empty=False)
        if filter_empty and "annotations" in part[0]:
            part = filter_images_with_only_crowd_annotations(part)
        dicts += add_proposals(part, read_proposals(path), name)
    # Of all together, as in Detectron2: one of them may have no objects.
    assert dicts, f"No valid data found in {','.join(names)}."
    return dicts


def add_proposals(
    dicts: Sequence[dict[str, Any]], proposals: Proposals, name: str
) -> list[dict[str, Any]]:
    """Copy a dataset's dicts with each image's boxes, the best first, under Detectron2's keys.

    Raises:
        IONError: see :func:`match_proposals`.
    """
    added = []
    for record, i in zip(dicts, match_proposals(proposals, dicts, name)):
        boxes, scores = proposals.ranked(i)
        found = {"proposal_boxes": boxes, "proposal_objectness_logits": scores}
        added.append({**record, **found, "proposal_bbox_mode": BoxMode.XYXY_ABS})
    return added


def match_proposals(proposals: Proposals, dicts: Sequence[dict[str, Any]], name: str) -> list[int]:
    """Find the images of a dataset's dicts and check that their boxes lie in the picture.

    Returns:
        The position of each dict's image in ``proposals``.

    Raises:
        IONError: images are missing, all of them or some, or a box lies more than a pixel outside.
    """
    index = proposals.index()
    ids = [str(record["image_id"]) for record in dicts]
    missing = [image_id for image_id in ids if image_id not in index]
    if missing:
        raise _missing_error(proposals, missing, len(ids), name)
    found = [index[image_id] for image_id in ids]
    for record, i in zip(dicts, found):
        _check_inside(proposals, i, record)
    return found


def _missing_error(proposals: Proposals, missing: list[str], number: int, name: str) -> IONError:
    told = f"Proposal file {proposals.source}"
    if len(missing) == number and proposals.ids:
        return IONError(
            f"{told} belongs to another image set: it has {len(proposals.ids)} images such as "
            f"'{proposals.ids[0]}', none of the {number} of dataset '{name}' such as "
            f"'{missing[0]}'; give the file made for this dataset."
        )
    return IONError(
        f"{told} misses {len(missing)} of the {number} images of dataset '{name}', the first "
        f"'{missing[0]}'; make it for the whole dataset, or convert it with tools/proposals.py and "
        "--fill, which gives them no boxes."
    )


def _check_inside(proposals: Proposals, i: int, record: dict[str, Any]) -> None:
    width, height = record.get("width"), record.get("height")
    boxes = proposals.boxes[i]
    if width is None or height is None or not len(boxes):
        return
    limits = np.array([width, height, width, height], dtype=np.float32) + _TOLERANCE
    outside = ((boxes < -_TOLERANCE) | (boxes > limits)).any(axis=1)
    if outside.any():
        raise IONError(
            f"Proposal file {proposals.source}, image '{record['image_id']}': box "
            f"{boxes[outside.argmax()].tolist()} (x0, y0, x1, y1), one of {outside.sum()}, lies "
            f"outside the picture, which is {width}x{height}; the order of the coordinates was "
            "mistaken, or the boxes were made on pictures of another size."
        )
