"""Further folders of label maps: SBD, or anyone's palette pictures."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

from ion_d2.data.folders import composed, index_folder
from ion_d2.errors import IONError

logger = logging.getLogger(__name__)

_EXTENSIONS = (".png", ".mat")


def add_label_files(dicts: Sequence[dict[str, Any]], folders: Sequence[str]) -> list[dict]:
    """Give label maps to images that have none of their own.

    Args:
        dicts: Detectron2 dataset dicts; they are not changed.
        folders: where to look, the first that has a label wins. A plain name is a folder beside the
            folder of the image (in VOC layout, beside ``JPEGImages``), where it may be missing;
            anything with a path separator is a path. A label has the image's file name with the
            extension ``.png``, or ``.mat`` for SBD.

    Returns:
        The dicts in their order, with ``sem_seg_file_name`` where there is a label.

    Raises:
        IONError: a path is not a folder.
    """
    labels = _Labels(folders)
    return [record if "sem_seg_file_name" in record else labels.add_to(record) for record in dicts]


def log_label_count(dicts: Sequence[dict[str, Any]]) -> None:
    """Log how many images have segmentation labels, with a warning if none has.

    Args:
        dicts: Detectron2 dataset dicts.
    """
    count = sum("sem_seg_file_name" in d or _has_mask(d) for d in dicts)
    level = logging.INFO if count else logging.WARNING
    logger.log(level, "Segmentation labels: %d of %d training images.", count, len(dicts))


def _has_mask(record: dict[str, Any]) -> bool:
    return any(annotation.get("segmentation") for annotation in record.get("annotations", ()))


class _Labels:
    """Looks labels up, listing every folder once."""

    def __init__(self, folders: Sequence[str]) -> None:
        self._folders = [os.path.expanduser(folder) for folder in folders]
        self._listed: dict[str, dict[str, str]] = {}
        for folder in self._folders:
            if os.path.basename(folder) != folder and not os.path.isdir(folder):
                raise IONError(
                    f"DATASETS.SEM_SEG_DIRS names {folder}, which is not a folder; correct the "
                    "path."
                )

    def add_to(self, record: dict[str, Any]) -> dict[str, Any]:
        images, file_name = os.path.split(record["file_name"])
        stem = os.path.splitext(file_name)[0]
        for name in self._folders:
            plain = os.path.basename(name) == name
            folder = os.path.join(os.path.dirname(images), name) if plain else name
            label = self._list(folder).get(composed(stem))
            if label is not None:
                return {**record, "sem_seg_file_name": label}
        return record

    def _list(self, folder: str) -> dict[str, str]:
        if folder not in self._listed:
            there = os.path.isdir(folder)
            self._listed[folder] = index_folder(folder, _EXTENSIONS) if there else {}
        return self._listed[folder]
