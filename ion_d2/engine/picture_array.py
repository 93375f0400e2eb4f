"""The pictures that a predictor is given as arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from ..errors import IONError

_WANTED = "give a NumPy array (H, W, 3) of type uint8, BGR, as cv2.imread does, or (H, W) in gray"


def as_picture(image: Any, image_format: str) -> np.ndarray:
    """Check a picture, and give it the channels of a model.

    Args:
        image: (H, W, 3) uint8, BGR; (H, W, 4) with an alpha channel, which is dropped; or gray,
            (H, W) or (H, W, 1), which a model of three channels gets three times.
        image_format: ``INPUT.FORMAT``: "BGR", "RGB" or "L".

    Returns:
        (H, W, 3) uint8 in the order of ``image_format``, or (H, W, 1) for "L".

    Raises:
        IONError: it is no such array; the message tells its kind, type or shape.
    """
    _check_array(image)
    if image.ndim == 2:
        image = image[:, :, None]
    if image.shape[2] == 1:
        return image if image_format == "L" else np.repeat(image, 3, axis=2)
    rgb = image[:, :, 2::-1]  # without alpha
    if image_format == "L":
        # As pictures in color are read for training such a model.
        return np.asarray(Image.fromarray(np.ascontiguousarray(rgb)).convert("L"))[:, :, None]
    return rgb if image_format == "RGB" else image[:, :, :3]


def _check_array(image: Any) -> None:
    if image is None:
        raise IONError(
            "The picture is None, as cv2.imread gives for a file that it cannot read; check its "
            f"path, and {_WANTED}."
        )
    if not isinstance(image, np.ndarray):
        told = f" {image!r}" if isinstance(image, str) else ""
        raise IONError(f"The picture is a {type(image).__name__}{told}, not an array; {_WANTED}.")
    if image.dtype != np.uint8:
        raise IONError(
            f"The picture is an array of type {image.dtype}, not uint8; {_WANTED}, with values "
            "from 0 to 255."
        )
    gray = image.ndim == 2
    if not (gray or (image.ndim == 3 and image.shape[2] in (1, 3, 4))) or 0 in image.shape:
        raise IONError(f"The picture is an array of shape {image.shape}; {_WANTED}.")
