"""Further folders of label maps: SBD, or anyone's palette pictures."""

from __future__ import annotations

import functools
import logging
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import IONError
from .folders import file_stem, index_folder, own_names, pictures_called

logger = logging.getLogger(__name__)

_EXTENSIONS = (".png", ".mat")


def add_label_files(dicts: Sequence[dict[str, Any]], folders: Sequence[str]) -> list[dict]:
    """Give a ``sem_seg_file_name`` to images that have no label map of their own.

    Args:
        dicts: Detectron2 dataset dicts; they are not changed, and their order stays.
        folders: where to look, the first that has a label wins. A plain name is a folder beside the
            folder of the image (in VOC layout, beside ``JPEGImages``) or else beside the nearest
            folder above that has one there, and may be missing; anything with a path separator is a
            path. A label has the image's file name with the extension ``.png``, or ``.mat`` for
            SBD, in subfolders like the image's or, if no other image has that name, in none.

    Raises:
        IONError: a path is not a folder.
    """
    folders = [os.path.expanduser(folder) for folder in folders]
    for folder in folders:
        if not _is_plain(folder) and not os.path.isdir(folder):
            raise IONError(
                f"DATASETS.SEM_SEG_DIRS names {folder}, which is not a folder; correct the path."
            )

    pictures = list(dict.fromkeys(record["file_name"] for record in dicts))
    labels: dict[str, str] = {}
    for name in reversed(folders):
        labels.update(_labels_in(name, pictures))
    found = {picture: {"sem_seg_file_name": label} for picture, label in labels.items()}
    return [{**found.get(record["file_name"], {}), **record} for record in dicts]


def log_label_count(dicts: Sequence[dict[str, Any]]) -> None:
    """Log how many images have segmentation labels, with a warning if none has."""
    count = sum(
        "sem_seg_file_name" in record
        or any(found.get("segmentation") for found in record.get("annotations", ()))
        for record in dicts
    )
    level = logging.INFO if count else logging.WARNING
    logger.log(level, "Segmentation labels: %d of %d training images.", count, len(dicts))


def _labels_in(name: str, pictures: Sequence[str]) -> dict[str, str]:
    """The label of each picture that has one in a folder, which may be one for each dataset."""
    sharing: defaultdict[str, list[str]] = defaultdict(list)
    beside = functools.cache(functools.partial(_folder_beside, name))
    for picture in pictures:
        folder = beside(os.path.dirname(picture)) if _is_plain(name) else name
        if folder:
            sharing[folder].append(picture)
    labels = {}
    for folder, files in sharing.items():
        index = index_folder(folder, _EXTENSIONS)
        own = own_names(pictures_called(index, map(file_stem, files)))
        labels.update({files[place]: index[stem] for place, stem in own.items()})
    return labels


def _folder_beside(name: str, images: str) -> str | None:
    """The nearest folder of a name beside the folder of images or beside one that it lies in."""
    places = (os.path.join(above, name) for above in Path(images).parents)
    return next(filter(os.path.isdir, places), None)


def _is_plain(folder: str) -> bool:
    return os.path.basename(folder) == folder
