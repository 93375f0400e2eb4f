"""Backgrounds, colors and pixel noise: everything of a scene that carries no meaning.

A canvas is a float32 RGB array (size, size, 3) with values around 0 to 255.
"""

from __future__ import annotations

import cv2
import numpy as np

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""Weights of R, G and B in perceived brightness (ITU-R BT.601)."""

_COARSEST_AMPLITUDE = 14.0
_DECAY_PER_OCTAVE = 0.72
_SATURATION = 0.2
_NOISE = 4.0


def make_background(rng: np.random.Generator, size: int) -> np.ndarray:
    """Paint a cloudy, grainy surface of random, muted color.

    Octaves of smooth noise with falling amplitude give the nearly 1/f spectrum of natural
    pictures; the two coarsest octaves also shift the hue. The color is muted, as that of soil or
    stone is: a background as colorful as a band would be a second, contradicting cue.

    Returns:
        (size, size, 3) float32.
    """
    canvas = np.empty((size, size, 3), dtype=np.float32)
    canvas[:] = rng.uniform(75, 180, 3)
    amplitude, cells = _COARSEST_AMPLITUDE, 3
    while cells <= size // 2:
        channels = 3 if cells <= 6 else 1
        grid = rng.standard_normal((cells, cells, channels), dtype=np.float32) * amplitude
        octave = cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC)
        canvas += octave.reshape(size, size, channels)
        amplitude, cells = amplitude * _DECAY_PER_OCTAVE, cells * 2
    gray = (canvas @ LUMA)[..., None]
    return gray + _SATURATION * (canvas - gray)


def finish(canvas: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add sensor-like pixel noise and round: a (size, size, 3) uint8 RGB picture."""
    noise = rng.standard_normal(canvas.shape, dtype=np.float32) * _NOISE
    return np.clip(np.rint(canvas + noise), 0, 255).astype(np.uint8)


def contrasting_color(rng: np.random.Generator, against: np.ndarray) -> np.ndarray:
    """Of six random RGB colors (3,) the one farthest from ``against``."""
    candidates = rng.uniform(30, 225, (6, 3)).astype(np.float32)
    distance = np.square(candidates - against).sum(axis=1)
    return candidates[distance.argmax()]
