"""A scene under construction: picture, labels, objects, and the search for free places."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ion_lab.scenes.scene_settings import BORDER
from ion_lab.scenes.sprites import Sprite

_TRIES = 64


class SceneObject(NamedTuple):
    """One labeled object."""

    name: str  # of its class
    box: tuple[int, int, int, int]  # x0, y0, x1, y1: 0-based extent of its mask, ends exclusive


class Layout:
    """Canvas (size, size, 3), label map and list of objects that grow together.

    The canvas is painted in place; label i + 1 is class i.
    """

    def __init__(self, canvas: np.ndarray, classes: tuple[str, ...]) -> None:
        self.canvas = canvas
        self.labels = np.zeros(canvas.shape[:2], dtype=np.uint8)
        self.objects: list[SceneObject] = []
        self._ids = {name: number for number, name in enumerate(classes, start=1)}
        self._taken: list[tuple[int, int, int, int]] = []

    def reserve(
        self, rng: np.random.Generator, height: int, width: int, top: int
    ) -> tuple[int, int] | None:
        """Find a free place at random, not above row ``top``, and keep it from being given again.

        Returns:
            (row, column) of its upper left corner, or None if no try of many was free.
        """
        size = self.canvas.shape[0]
        if size - BORDER - height < top:
            return None
        rows = rng.integers(top, size - BORDER - height + 1, _TRIES)
        columns = rng.integers(BORDER, size - BORDER - width + 1, _TRIES)
        free = np.ones(_TRIES, dtype=bool)
        for x0, y0, x1, y1 in self._taken:
            apart_x = (columns >= x1 + BORDER) | (columns + width + BORDER <= x0)
            free &= apart_x | (rows >= y1 + BORDER) | (rows + height + BORDER <= y0)
        if not free.any():
            return None
        row, column = int(rows[free.argmax()]), int(columns[free.argmax()])
        self._taken.append((column, row, column + width, row + height))
        return row, column

    def stamp(self, name: str, sprite: Sprite, row: int, column: int) -> None:
        """Paint a sprite with its corner at (row, column) and note it as an object of ``name``."""
        height, width = sprite.alpha.shape
        window = np.s_[row : row + height, column : column + width]
        self.canvas[window] += sprite.alpha[..., None] * (sprite.color - self.canvas[window])
        mask = sprite.alpha >= 0.5
        self.labels[window][mask] = self._ids[name]
        ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        x0, y0, x1, y1 = (int(edge) for edge in (xs[0], ys[0], xs[-1] + 1, ys[-1] + 1))
        box = (column + x0, row + y0, column + x1, row + y1)
        self.objects.append(SceneObject(name, box))
