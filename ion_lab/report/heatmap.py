"""Maps of numbers as pictures."""

from __future__ import annotations

import io
from collections.abc import Sequence

import matplotlib
import numpy as np
from PIL import Image
from scipy import ndimage

# Dark to light by lightness alone, so that it needs no color vision; legible on any paper.
_COLORS = "magma"
_OUTLINE, _SPOT = (90, 230, 255), (120, 255, 120)


def heat_map(
    values: np.ndarray,
    *,
    top: float | None = None,
    decades: float | None = None,
    zoom: int = 1,
    outline: np.ndarray | None = None,
    spot: Sequence[int] | None = None,
) -> bytes:
    """Draw a map as a PNG file, black for nothing, pale yellow for the most.

    Args:
        values: (H, W), not negative.
        top: what is palest; None for the largest value.
        decades: powers of ten below ``top`` that the colors span, evenly; None for a scale from 0
            in equal steps.
        zoom: side in pixels of each value.
        outline: (H, W) bool array whose inner border is drawn.
        spot: (x0, y0, x1, y1) of a frame, in values from the upper left, ends exclusive.
    """
    shade = _shade(np.asarray(values, dtype=np.float64), top, decades)
    pixels = matplotlib.colormaps[_COLORS](shade, bytes=True)[:, :, :3]
    pixels = pixels.repeat(zoom, axis=0).repeat(zoom, axis=1)
    if outline is not None:
        inside = np.pad(outline.repeat(zoom, axis=0).repeat(zoom, axis=1), 2)
        border = inside & ~ndimage.binary_erosion(inside, np.ones((3, 3)), iterations=2)
        pixels[border[2:-2, 2:-2]] = _OUTLINE
    if spot is not None:
        x0, y0, x1, y1 = (zoom * side for side in spot)
        frame = np.zeros(pixels.shape[:2], dtype=bool)
        frame[y0:y1, x0:x1] = True
        frame[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2] = False
        pixels[frame] = _SPOT
    return encode(Image.fromarray(pixels), "PNG")


def _shade(values: np.ndarray, top: float | None, decades: float | None) -> np.ndarray:
    """Bring values to 0..1; all 0 where there is nothing to show."""
    top = float(values.max(initial=0.0)) if top is None else top
    if top <= 0:
        return np.zeros_like(values)
    share = np.clip(values / top, 0.0, 1.0)
    if decades is None:
        return share
    return 1 + np.log10(np.maximum(share, 10.0**-decades)) / decades


def encode(image: Image.Image, kind: str) -> bytes:
    """The picture as a file of a kind, "PNG" or "JPEG"."""
    file = io.BytesIO()
    options = {"quality": 82, "subsampling": 0} if kind == "JPEG" else {}
    image.save(file, kind, optimize=True, **options)
    return file.getvalue()
