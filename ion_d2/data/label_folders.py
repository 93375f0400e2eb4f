"""Further folders of label maps: SBD, or anyone's palette pictures."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Sequence
from typing import Any

from ion_d2.data.folders import composed, index_folder
from ion_d2.errors import IONError

logger = logging.getLogger(__name__)

_EXTENSIONS = (".png", ".mat")


def add_label_files(dicts: Sequence[dict[str, Any]], folders: Sequence[str]) -> list[dict]:
    """Give a ``sem_seg_file_name`` to images that have no label map of their own.

    Args:
        dicts: Detectron2 dataset dicts; they are not changed, and their order stays.
        folders: where to look, the first that has a label wins. A plain name is a folder beside the
            folder of the image (in VOC layout, beside ``JPEGImages``), where it may be missing;
            anything with a path separator is a path. A label has the image's file name with the
            extension ``.png``, or ``.mat`` for SBD.

    Raises:
        IONError: a path is not a folder.
    """
    folders = [os.path.expanduser(folder) for folder in folders]
    for folder in folders:
        if not _is_plain(folder) and not os.path.isdir(folder):
            raise IONError(
                f"DATASETS.SEM_SEG_DIRS names {folder}, which is not a folder; correct the path."
            )

    @functools.cache
    def labels_in(folder: str) -> dict[str, str]:
        return index_folder(folder, _EXTENSIONS) if os.path.isdir(folder) else {}

    def with_label(record: dict[str, Any]) -> dict[str, Any]:
        images, file_name = os.path.split(record["file_name"])
        stem = composed(os.path.splitext(file_name)[0])
        for name in folders:
            folder = os.path.join(os.path.dirname(images), name) if _is_plain(name) else name
            if stem in labels_in(folder):
                return {**record, "sem_seg_file_name": labels_in(folder)[stem]}
        return record

    return [record if "sem_seg_file_name" in record else with_label(record) for record in dicts]


def log_label_count(dicts: Sequence[dict[str, Any]]) -> None:
    """Log how many images have segmentation labels, with a warning if none has."""
    count = sum("sem_seg_file_name" in record or _has_mask(record) for record in dicts)
    level = logging.INFO if count else logging.WARNING
    logger.log(level, "Segmentation labels: %d of %d training images.", count, len(dicts))


def _is_plain(folder: str) -> bool:
    return os.path.basename(folder) == folder


def _has_mask(record: dict[str, Any]) -> bool:
    return any(annotation.get("segmentation") for annotation in record.get("annotations", ()))
