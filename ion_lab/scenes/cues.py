"""The regions at the top of a scene that decide the class of its *outside* objects.

A cue covers the full width of some rows, or lies at random along them, so a horizontal flip keeps
its meaning. Drawing it takes the same random numbers in both of its states, 0 and 1.
"""

from __future__ import annotations

from typing import Callable, NamedTuple

import numpy as np

from ion_lab.scenes.canvas import LUMA
from ion_lab.scenes.sprites import coverage

_GRAY = 128.0
# Warm (orange) tint; its opposite is a cool blue. Its luma is zero, so that both are as bright as
# the gray between them.
_TINT = np.array([70.0, -21.1, -75.0], dtype=np.float32)
_BALANCED_GAP, _BALANCED_BAND = 4, 12
_MARK_OUTER, _MARK_HOLE = 20.0, 8.0


class Cue(NamedTuple):
    """One kind of cue: the rows it takes, and ``draw(canvas, rng, state, top)``, in place."""

    height: int
    draw: Callable[[np.ndarray, np.random.Generator, int, int], None]


def _neutral(strip: np.ndarray) -> None:
    """Drain the strip's color and bring it to mid gray; its texture stays."""
    luma = strip @ LUMA
    strip[:] = (luma - luma.mean() + _GRAY)[..., None]


def _draw_band(canvas: np.ndarray, rng: np.random.Generator, state: int, top: int) -> None:
    strip = canvas[top : top + BAND.height]
    _neutral(strip)
    strip += _TINT * ((1 if state == 0 else -1) * rng.uniform(0.85, 1.15))


def _draw_balanced(canvas: np.ndarray, rng: np.random.Generator, state: int, top: int) -> None:
    strip = canvas[top : top + BALANCED.height]
    _neutral(strip)
    upper = _TINT * ((1 if state == 0 else -1) * rng.uniform(0.85, 1.15))
    pitch = _BALANCED_GAP + _BALANCED_BAND
    strip[_BALANCED_GAP:pitch] += upper
    strip[pitch + _BALANCED_GAP : 2 * pitch] -= upper


def mark_alpha(state: int) -> np.ndarray:
    """Coverage (height, width) in 0..1 of a disc (state 0) or a ring (state 1) of equal area.

    The ring measures 20 px with a hole of 8 px, the disc 18.3 px.
    """
    side = MARK.height
    hole = _MARK_HOLE if state == 1 else 0.0
    outer = _MARK_OUTER if state == 1 else (_MARK_OUTER**2 - _MARK_HOLE**2) ** 0.5

    def shape(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        diameter = np.sqrt(u * u + v * v) * side
        return (diameter <= outer) & (diameter >= hole)

    return coverage(shape, side, side)


def _draw_mark(canvas: np.ndarray, rng: np.random.Generator, state: int, top: int) -> None:
    side = MARK.height
    left = int(rng.integers(0, canvas.shape[1] - side + 1))
    patch = canvas[top : top + side, left : left + side]
    tone = 15.0 if (patch @ LUMA).mean() > _GRAY else 240.0
    patch += mark_alpha(state)[..., None] * (tone - patch)


BAND = Cue(40, _draw_band)
"""A tinted band, 40 px: warm orange (state 0) or cool blue (state 1), opposite about gray."""

BALANCED = Cue(2 * (_BALANCED_GAP + _BALANCED_BAND) + _BALANCED_GAP, _draw_balanced)
"""Both tints in every picture: bands of 12 px in a gray strip, warm (0) or cool (1) above."""

MARK = Cue(24, _draw_mark)
"""One disc (state 0) or ring (state 1) of about 20 px, white on dark or black on light."""
