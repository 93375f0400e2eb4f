"""Segmentation label maps: found by their pictures, read as raw ids, moved along with the image.

A label map is a PNG whose pixels are class ids (0 the background, 1..K the classes, 255 void), or a
Matlab file in the folder ``cls`` of the Semantic Boundaries Dataset (SBD, Hariharan et al., ICCV
2011), whose array ``GTcls.Segmentation`` holds VOC's ids, without void.
"""

from __future__ import annotations

import functools
import logging
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import transforms as T
from PIL import Image

from ..errors import IONError
from .folders import file_stem, index_folder, own_names, pictures_called
from .matlab import load_mat
from .readable import DECODE_ERRORS, open_picture

logger = logging.getLogger(__name__)

_EXTENSIONS = (".png", ".mat")
_MODES = ("P", "L", "1")
# Pillow stretches grayscale of 2 and 4 bits to 0..255; the divisor gives the stored id back.
_GRAY_STRETCH = {"L;2": 85, "L;4": 17}
_STRUCTURE, _FIELD = "GTcls", "Segmentation"


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


def read_label_map(
    path: str | os.PathLike, num_classes: int, ignore_label: int = 255
) -> np.ndarray:
    """Read a label map as an (H, W) uint8 array of ids, without turning its palette into colors.

    Args:
        path: a PNG with one channel: a palette (as in VOC), grayscale or black-and-white; or a
            ``.mat`` file of SBD.
        num_classes: number of ids, the background included; valid ids are 0 .. num_classes - 1.
        ignore_label: the id of pixels that belong to no class.

    Raises:
        IONError: the file cannot be read, has color channels or 16 bits, or holds other ids.
    """
    path = os.fspath(path)
    labels = _read_sbd(path) if path.lower().endswith(".mat") else _read_indices(path)
    ids = np.flatnonzero(np.bincount(labels.ravel(), minlength=256))
    wrong = [int(i) for i in ids if i >= num_classes and i != ignore_label]
    if wrong:
        raise IONError(
            f"Label {path} holds the id(s) {', '.join(map(str, wrong))}, but only 0.."
            f"{num_classes - 1} and {ignore_label} (ignored) are valid; correct it or the classes.",
            rule="label-map-ids",
        )
    return labels


def _read_indices(path: str) -> np.ndarray:
    try:
        with open(path, "rb") as file, open_picture(file) as image:
            mode, stretch = image.mode, _gray_stretch(image)
            indices = np.array(image) if mode in _MODES else None
    except DECODE_ERRORS as error:
        raise IONError(f"Label {path} cannot be read ({error}); replace or remove it.") from error
    if indices is None:
        cures = {"L": "save it without transparency", "I": "save it with 8 bits a pixel"}
        raise IONError(
            f"Label {path} has pixel mode {mode}, but must hold one 8-bit class id a pixel, as "
            f"palette or grayscale PNG; {cures.get(mode[0], 'convert its colors to ids')}."
        )
    return indices.astype(np.uint8) // np.uint8(stretch)


def _gray_stretch(image: Image.Image) -> int:
    # The raw mode is the last entry of Pillow's decoder arguments, a name or a tuple of it.
    tiles: Any = getattr(image, "tile", None)
    arguments = tiles[0][3] if tiles else None
    raw_mode: Any = arguments[0] if isinstance(arguments, tuple) else arguments
    return _GRAY_STRETCH.get(raw_mode, 1)


def _read_sbd(path: str) -> np.ndarray:
    content = load_mat(path)
    labels = _segmentation(content)
    if labels is None:
        keys = ", ".join(sorted(content)) or "nothing"
        raise IONError(
            f"Label {path} has no array {_STRUCTURE}.{_FIELD}, but holds {keys}; SBD's files of "
            "class ids are those in its folder cls."
        )
    if labels.size and not (labels.min() >= 0 and labels.max() <= 255):
        raise IONError(f"Label {path} holds ids outside 0..255; replace or remove it.")
    return labels.astype(np.uint8)


def _segmentation(content: dict[str, Any]) -> np.ndarray | None:
    """The 2-D numeric array in GTcls.Segmentation, if there is one."""
    structure: Any = content.get(_STRUCTURE)
    names = getattr(getattr(structure, "dtype", None), "names", None) or ()
    if _FIELD not in names or structure.size != 1:
        return None
    labels = structure[_FIELD].item()
    # Matlab may have kept the ids as integers or as its usual doubles.
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "uif" or labels.ndim != 2:
        return None
    return labels


def transform_label_map(
    labels: np.ndarray, transforms: T.Transform, num_classes: int, ignore_label: int = 255
) -> np.ndarray:
    """Apply an image's geometric transforms to its label map, with nearest-neighbor sampling.

    Pixels that the transforms add around the image (padding, the corners of a rotation) are
    ignored, whichever value the transforms fill them with.

    Args:
        labels: (H, W) uint8 ids, 0 .. num_classes - 1 or ``ignore_label``.
        transforms: what was applied to the image.
        num_classes: number of ids, the background included, at most 254.

    Returns:
        (H', W') int64 array of ids.
    """
    # Fills are 0 (some versions: 255). Ids are shifted up by one, so that neither is a class.
    shifted = np.where(labels == ignore_label, 0, labels + np.uint8(1)).astype(np.uint8)
    moved = transforms.apply_segmentation(shifted).astype(np.int64) - 1
    moved[(moved < 0) | (moved >= num_classes)] = ignore_label
    return moved
