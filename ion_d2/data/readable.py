"""Reading pictures, with one clear sentence for those that cannot be decoded."""

from __future__ import annotations

import functools
import logging
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
from detectron2.data import detection_utils
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.utils.file_io import PathManager
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from ..errors import IONError

logger = logging.getLogger(__name__)

DECODE_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, EOFError, LookupError, OverflowError, struct.error,
    zlib.error, MemoryError, RuntimeError, Image.DecompressionBombError,
)  # fmt: skip
"""What a damaged picture leads Pillow to raise."""
# Of those that Pillow knows, PostScript is a program, which another one would run, and some unpack
# without a limit.
_FORMATS = (
    "AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "SGI",
    "TGA", "TIFF", "WEBP",
)  # fmt: skip
_MAX_THREADS = 8
EXIF_ORIENTATION = 274
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257
QUARTER_TURNS = (5, 6, 7, 8)


class UnreadableImageError(IONError):
    """A picture is there, but cannot be decoded or used."""


def read_image(file_name: str, image_format: str | None = None) -> np.ndarray:
    """Decode a picture completely, turned as its EXIF data asks.

    ``image_format`` is "BGR", "RGB", ... as in INPUT.FORMAT; None keeps the file's own, and gives
    an (H, W) array in place of (H, W, C) for one channel.

    Raises:
        UnreadableImageError: it is damaged, not a picture, or has more than 8 bits a channel.
        IONError: there is no such file.
    """
    with _opened(file_name) as image:
        if image_format is not None:
            _check_depth(image, file_name)
        # Before EXIF is looked at, because Pillow turns a TIFF when it decodes it, and Detectron2
        # would turn it once more.
        image.load()
        turned = detection_utils._apply_exif_orientation(image)
        return detection_utils.convert_PIL_to_numpy(turned, image_format)


def read_image_of(record: dict[str, Any], image_format: str | None = None) -> np.ndarray:
    """Decode a dataset dict's picture with :func:`read_image`; a dict without a size is given it.

    Raises:
        UnreadableImageError: see :func:`read_image`.
        IONError: there is no such file, or it has another size than the dict says.
    """
    image = read_image(record["file_name"], image_format)
    _check_size(record, image.shape[:2])
    detection_utils.check_image_size(record, image)  # gives the size to a dict without one
    return image


def read_size(file_name: str) -> tuple[int, int]:
    """Height and width of a picture from its header, turned as its EXIF data asks.

    Raises:
        UnreadableImageError: it is not a picture.
        IONError: there is no such file.
    """
    with _opened(file_name) as image:
        return _size_of(image)


def check_present(dicts: Sequence[dict[str, Any]]) -> None:
    """Look for the files of dataset dicts, without opening them or asking other machines.

    Raises:
        IONError: one is missing.
    """
    for record in dicts:
        name = os.fspath(record["file_name"])
        if "://" not in name and not os.path.exists(name):
            raise _missing(name)


def check_sizes(dicts: Sequence[dict[str, Any]], *, any_depth: bool) -> None:
    """Look at headers of pictures for what would falsify their labels elsewhere.

    Raises:
        IONError: a picture is missing, empty, no picture, too deep unless for ``any_depth``, or has
            another size than its dict says.
    """
    look = functools.partial(_check_header, resize=None, any_depth=any_depth)
    for error in filter(None, _unreadable(dicts, look)):
        raise error


def check_headers(
    dicts: Sequence[dict[str, Any]], resize: ResizeShortestEdge, *, skip_unreadable: bool
) -> None:
    """Look at the headers of pictures for what would stop a run; nothing is decoded.

    With ``skip_unreadable``, nothing is said of pictures that :func:`filter_unreadable` leaves out.

    Raises:
        UnreadableImageError: a picture is empty, no picture, too deep or too thin.
        IONError: a picture is missing, or has another size than its dict says.
    """
    for error in _unreadable(dicts, lambda record: _check_header(record, resize)):
        if error is not None and not skip_unreadable:
            raise or_skip(error) from error


def filter_unreadable(
    dicts: Sequence[dict[str, Any]], resize: ResizeShortestEdge | None = None
) -> list[dict[str, Any]]:
    """Leave out the dicts whose picture cannot be decoded or is too thin for ``resize``.

    The others keep their order; a warning names each that is left out.

    Raises:
        IONError: a picture is missing, or none can be decoded.
    """

    def decode(record: dict[str, Any]) -> None:
        _check_header(record, resize)
        _decode_once(record["file_name"])

    errors = _unreadable(dicts, decode)
    for error in filter(None, errors):
        warn_skipped(error)
    kept = [record for record, error in zip(dicts, errors) if error is None]
    if dicts and not kept:
        raise IONError(f"None of the {len(dicts)} images can be decoded, for instance: {errors[0]}")
    return kept


def warn_skipped(error: UnreadableImageError) -> None:
    """Warn of a picture that is left out."""
    logger.warning("Skipped: %s", error)


def or_skip(error: UnreadableImageError) -> UnreadableImageError:
    """The error with the advice that a run of a dataset can follow."""
    advice = ", or leave out such pictures with INPUT.SKIP_UNREADABLE True."
    return UnreadableImageError(str(error).removesuffix(".") + advice)


def too_thin(file_name: str, size: tuple[int, int]) -> UnreadableImageError:
    """The error for a picture (height, width) of which a side has no pixel left once resized."""
    return UnreadableImageError(
        f"Image {file_name} of {size[1]}x{size[0]} pixels is too thin: a side has no pixel left "
        "at the sizes of INPUT; cut it into pieces."
    )


def open_picture(file: IO[bytes]) -> Image.Image:
    """Open a picture, not decoded yet, with Pillow; only those of usual formats.

    Raises:
        Exception: one of ``DECODE_ERRORS``.
    """
    try:
        image = Image.open(file)
    except UnidentifiedImageError as error:
        raise ValueError("it is in no known format of pictures") from error
    if image.format not in _FORMATS:
        raise ValueError(f"pictures in the format {image.format} are not read; save it as PNG")
    return image


@contextmanager
def _opened(file_name: str) -> Iterator[Image.Image]:
    """A picture, not decoded yet; what Pillow raises here and in the block becomes one sentence."""
    name = os.fspath(file_name)
    try:
        if "://" not in name and os.path.exists(name) and not os.path.isfile(name):
            raise ValueError("it is not a file")  # but a pipe or a device, which may never end
        with PathManager.open(name, "rb") as file, open_picture(file) as image:
            yield image
    except FileNotFoundError as error:
        raise _missing(file_name) from error
    except IONError:
        raise
    except DECODE_ERRORS as error:
        raise UnreadableImageError(
            f"Image {file_name} cannot be decoded ({error}); replace it.", rule="broken-picture"
        ) from error


def _missing(file_name: str) -> IONError:
    text = f"Image {file_name} does not exist; restore it, or take it out of the dataset."
    return IONError(text, rule="missing-picture")


def _check_depth(image: Image.Image, file_name: str) -> None:
    """Refuse values that Pillow would cut off at 255."""
    if image.mode.startswith(("I", "F")):
        raise UnreadableImageError(
            f"Image {file_name} has more than 8 bits a channel (Pillow's mode {image.mode!r}); "
            "scale its values to 0 to 255 and save it with 8 bits."
        )


def _size_of(image: Image.Image) -> tuple[int, int]:
    return upright_size(image, image.getexif().get(EXIF_ORIENTATION, 1))


def upright_size(image: Image.Image, orientation: int) -> tuple[int, int]:
    """Height and width of a picture not decoded yet, turned as its EXIF orientation asks."""
    width, height = image.size
    if isinstance(image, TiffImageFile):  # whose size newer releases of Pillow give turned
        width, height = image.tag_v2[_TIFF_WIDTH], image.tag_v2[_TIFF_HEIGHT]
    return (width, height) if orientation in QUARTER_TURNS else (height, width)


def _check_header(
    record: dict[str, Any], resize: ResizeShortestEdge | None, *, any_depth: bool = False
) -> None:
    with _opened(record["file_name"]) as image:
        if not any_depth:
            _check_depth(image, record["file_name"])
        size = _size_of(image)
    _check_size(record, size)
    if resize is not None:
        transform = resize.get_transform(np.broadcast_to(np.uint8(0), size))
        if min(getattr(transform, "new_h", 1), getattr(transform, "new_w", 1)) < 1:
            raise too_thin(record["file_name"], size)


@functools.cache
def _decode_once(file_name: str) -> None:
    """Each evaluation in a process filters the same pictures: those found sound are remembered."""
    read_image(file_name)


def _check_size(record: dict[str, Any], size: tuple[int, int]) -> None:
    height, width = size
    stated = record.get("height") or height, record.get("width") or width
    if stated != (height, width):
        raise IONError(
            f"Image {record['file_name']} is {width}x{height} pixels (turned as its EXIF data "
            f"asks), but its annotation says {stated[1]}x{stated[0]}; correct the annotation or "
            "replace the image."
        )


def _unreadable(
    dicts: Sequence[dict[str, Any]], look: Callable[[dict[str, Any]], None]
) -> list[UnreadableImageError | None]:
    """The UnreadableImageError of each picture, looked at on several threads."""

    def error_of(record: dict[str, Any]) -> UnreadableImageError | None:
        try:
            look(record)
        except UnreadableImageError as error:
            return error
        return None

    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
        return list(pool.map(error_of, dicts))
