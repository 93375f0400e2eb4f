"""Reading pictures, with one clear sentence for those that cannot be decoded."""

from __future__ import annotations

import logging
import os
import struct
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from detectron2.data import detection_utils
from detectron2.utils.file_io import PathManager
from PIL import Image

from ion_d2.errors import IONError

logger = logging.getLogger(__name__)

# Pillow's decoders report damage in all these ways.
_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
_MAX_THREADS = 8
_EXIF_ORIENTATION = 274
_QUARTER_TURNS = (5, 6, 7, 8)


class UnreadableImageError(IONError):
    """A picture is there, but cannot be decoded."""


def read_image(file_name: str, image_format: str | None = None) -> np.ndarray:
    """Decode a picture completely, turned as its EXIF data asks.

    Args:
        file_name: the picture.
        image_format: "BGR", "RGB", ... as in INPUT.FORMAT; None keeps the file's own.

    Returns:
        (H, W, C) array, or (H, W) for a one-channel file and no ``image_format``.

    Raises:
        UnreadableImageError: it is truncated, empty or not a picture.
        IONError: there is no such file, or it has more than 8 bits a channel.
    """
    try:
        if image_format is not None:
            _check_depth(file_name)
        return detection_utils.read_image(file_name, format=image_format)
    except FileNotFoundError as error:
        raise IONError(
            f"Image {file_name} does not exist; restore it, or take it out of the dataset."
        ) from error
    except _DECODE_ERRORS as error:
        raise UnreadableImageError(
            f"Image {file_name} cannot be decoded ({error}); replace it, or leave out such "
            "pictures with INPUT.SKIP_UNREADABLE True."
        ) from error


def _check_depth(file_name: str) -> None:
    """Refuse what Pillow would cut off at 255 without a word."""
    with PathManager.open(file_name, "rb") as file, Image.open(file) as image:
        mode = image.mode
    if mode.startswith(("I", "F")):
        raise IONError(
            f"Image {file_name} has more than 8 bits a channel (Pillow's mode {mode!r}); scale its "
            "values to 0 to 255 and save it with 8 bits."
        )


def read_image_of(record: dict[str, Any], image_format: str | None = None) -> np.ndarray:
    """Decode the picture of a dataset dict and compare its size with what the dict says.

    Args:
        record: Detectron2 dataset dict; one that says no size is given the picture's.
        image_format: see :func:`read_image`.

    Returns:
        See :func:`read_image`.

    Raises:
        UnreadableImageError: it is truncated, empty or not a picture.
        IONError: there is no such file, or it has another size.
    """
    file_name = record["file_name"]
    image = read_image(file_name, image_format)
    try:
        detection_utils.check_image_size(record, image)
    except detection_utils.SizeMismatchError as error:
        raise IONError(
            f"Image {file_name} is {image.shape[1]}x{image.shape[0]} pixels (turned as its "
            f"EXIF data asks), but its annotation says {record['width']}x{record['height']}; "
            "correct the annotation or replace the image."
        ) from error
    return image


def read_size(file_name: str) -> tuple[int, int]:
    """Read the size of a picture from its header, turned as its EXIF data asks.

    Args:
        file_name: the picture.

    Returns:
        Height and width in pixels.

    Raises:
        IONError: it is missing or not a picture.
    """
    try:
        with PathManager.open(file_name, "rb") as file, Image.open(file) as image:
            width, height = image.size
            turned = image.getexif().get(_EXIF_ORIENTATION) in _QUARTER_TURNS
    except _DECODE_ERRORS as error:
        raise IONError(
            f"{file_name} is not a readable picture ({error}), and nothing else gives its height "
            "and width; replace the picture or take it out of the dataset."
        ) from error
    return (width, height) if turned else (height, width)


def filter_unreadable(dicts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out the images that cannot be decoded, with a warning that names each.

    Every picture is decoded completely, on several threads.

    Args:
        dicts: Detectron2 dataset dicts.

    Returns:
        Those whose picture can be decoded, in the same order.

    Raises:
        IONError: a picture is missing, or none can be decoded.
    """
    workers = min(_MAX_THREADS, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        errors = list(pool.map(_decode_error, [record["file_name"] for record in dicts]))
    for error in filter(None, errors):
        logger.warning("Skipped: %s", error)
    kept = [record for record, error in zip(dicts, errors) if error is None]
    if dicts and not kept:
        raise IONError(f"None of the {len(dicts)} images can be decoded, for instance: {errors[0]}")
    return kept


def _decode_error(file_name: str) -> UnreadableImageError | None:
    try:
        read_image(file_name)
    except UnreadableImageError as error:
        return error
    return None
