"""The things in a scene, each drawn as a small sprite: coverage and color.

Shape shorthand: (h, w) is the sprite's box in pixels; u and v run from -1 (left, top edge of the
box) to 1.
"""

from __future__ import annotations

from typing import Callable, NamedTuple

import numpy as np

from ion_lab.scenes.canvas import contrasting_color

_SUBSAMPLES = 3
_TEXTURE_PERIOD = 4
_TEXTURE_CONTRAST = 36.0


class Sprite(NamedTuple):
    """One drawn thing; its mask is where it covers at least half of a pixel."""

    alpha: np.ndarray  # coverage per pixel, (h, w) float32 in 0..1
    color: np.ndarray  # RGB per pixel, (h, w, 3) float32


Shape = Callable[[np.ndarray, np.ndarray], np.ndarray]


def coverage(shape: Shape, height: int, width: int) -> np.ndarray:
    """Anti-aliased picture of a shape: the covered share of each pixel, (height, width) float32.

    ``shape`` tells for arrays u, v in -1..1, which span the box, which points belong to it.
    """
    n = _SUBSAMPLES
    v = (np.arange(height * n, dtype=np.float32) + 0.5) * (2 / (height * n)) - 1
    u = (np.arange(width * n, dtype=np.float32) + 0.5) * (2 / (width * n)) - 1
    inside = shape(u[None, :], v[:, None]).astype(np.float32)
    return inside.reshape(height, n, width, n).mean(axis=(1, 3))


def lamp(rng: np.random.Generator, against: np.ndarray) -> Sprite:
    """A round bulb with a socket, 20-40 px, upright or turned by a multiple of 90 degrees."""
    size = int(rng.integers(27, 41))
    width = int(round(size * rng.uniform(0.76, 0.88)))
    bulb = coverage(lambda u, v: u * u + ((v + 0.28) / 0.72) ** 2 <= 1, size, width)
    socket = coverage(lambda u, v: (abs(u) <= 0.45) & (v >= 0.25), size, width)
    light = contrasting_color(rng, against)
    dark = light * rng.uniform(0.3, 0.5)
    color = light + socket[..., None] * (dark - light)
    turns = int(rng.integers(4))
    return Sprite(np.rot90(np.maximum(bulb, socket), turns), np.rot90(color, turns))


def kite(rng: np.random.Generator, against: np.ndarray) -> Sprite:
    """A diamond of 20-40 px, two opposite quarters darker."""
    height, width = (int(side) for side in rng.integers(22, 41, 2))
    alpha = coverage(lambda u, v: abs(u) + abs(v) <= 1, height, width)
    quarters = coverage(lambda u, v: u * v > 0, height, width)
    light = contrasting_color(rng, against)
    shade = 1 - quarters[..., None] * rng.uniform(0.4, 0.6)
    return Sprite(alpha, light * shade)


def cross(rng: np.random.Generator, against: np.ndarray) -> Sprite:
    """An upright cross of 24-60 px."""
    return _plain(rng, against, lambda u, v: (abs(u) <= 0.34) | (abs(v) <= 0.34))


def triangle(rng: np.random.Generator, against: np.ndarray) -> Sprite:
    """An isosceles triangle of 24-60 px, tip up."""
    return _plain(rng, against, lambda u, v: abs(u) <= (v + 1) / 2)


def _plain(rng: np.random.Generator, against: np.ndarray, shape: Shape) -> Sprite:
    size = int(rng.integers(28, 61))
    width = int(round(size * rng.uniform(0.86, 1.0)))
    color = np.empty((size, width, 3), dtype=np.float32)
    color[:] = contrasting_color(rng, against)
    return Sprite(coverage(shape, size, width), color)


def tile(rng: np.random.Generator, size: int, checked: bool) -> Sprite:
    """A small textured square or disc.

    Checked: squares of 2 px in two tones. Striped: stripes of 2 px in two tones, horizontal or
    vertical. Phase, shape and base color are random; mean and contrast over the tile's own pixels
    are set exactly, so that neither tells the two textures apart. The edge is hard.
    """
    mask = np.ones((size, size), dtype=bool)
    if rng.integers(2):
        mask = coverage(lambda u, v: u * u + v * v <= 1, size, size) >= 0.5
    texture = _texture(rng, size, checked)
    texture -= texture[mask].mean()
    texture *= _TEXTURE_CONTRAST / texture[mask].std()
    base = rng.uniform(85, 170, 3).astype(np.float32)
    return Sprite(mask.astype(np.float32), base + texture[..., None])


def _texture(rng: np.random.Generator, size: int, checked: bool) -> np.ndarray:
    phase, turned = rng.integers(0, _TEXTURE_PERIOD, 2), bool(rng.integers(2))
    half = _TEXTURE_PERIOD // 2
    rows, columns = ((np.arange(size) + shift) // half % 2 for shift in phase)
    across = rows[:, None] ^ columns[None, :] if checked else np.tile(rows[:, None], (1, size))
    return (across.T if turned else across).astype(np.float32)
