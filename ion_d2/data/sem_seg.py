"""Segmentation label maps: read as raw ids, moved along with the image.

A label map is a PNG whose pixels are class ids (0 the background, 1..K the classes, 255 void), or a
Matlab file in the folder ``cls`` of the Semantic Boundaries Dataset (SBD, Hariharan et al., ICCV
2011), whose array ``GTcls.Segmentation`` holds VOC's ids, without void.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from detectron2.data import transforms as T
from PIL import Image

from ..errors import IONError
from .matlab import load_mat
from .readable import DECODE_ERRORS, open_picture

_MODES = ("P", "L", "1")
# Pillow stretches grayscale of 2 and 4 bits to 0..255; the divisor gives the stored id back.
_GRAY_STRETCH = {"L;2": 85, "L;4": 17}
_STRUCTURE, _FIELD = "GTcls", "Segmentation"


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
        raise IONError(
            f"Label {path} has pixel mode {mode}, but must hold one 8-bit class id a pixel, as "
            "palette or grayscale PNG; convert its colors to ids."
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
        labels: (H, W) uint8 ids, 0 .. num_classes - 1 (at most 253) or ``ignore_label``.

    Returns:
        (H', W') int64 array of ids.
    """
    # Fills are 0 (some versions: 255). Ids are shifted up by one, so that neither is a class.
    shifted = np.where(labels == ignore_label, 0, labels + np.uint8(1)).astype(np.uint8)
    moved = transforms.apply_segmentation(shifted).astype(np.int64) - 1
    moved[(moved < 0) | (moved >= num_classes)] = ignore_label
    return moved
