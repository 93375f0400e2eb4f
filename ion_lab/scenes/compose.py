"""One scene: a background, the cues in their states, and the objects of every family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ion_lab.scenes import sprites
from ion_lab.scenes.canvas import finish, make_background
from ion_lab.scenes.placing import Layout, SceneObject
from ion_lab.scenes.scene_settings import FAMILY_CLASSES, SceneSettings

SPLITS = ("trainval", "test")
"""Names of the splits; their positions are the numbers that seed the pictures."""

_OUTSIDE_SPRITES = {"outside": sprites.lamp, "outside-far": sprites.kite}
_ORDINARY_SPRITES = {"cross": sprites.cross, "triangle": sprites.triangle}


class Scene(NamedTuple):
    """A finished picture with its truth."""

    image: np.ndarray  # (size, size, 3) uint8, RGB
    labels: np.ndarray  # (size, size) uint8, 0 background, i + 1 class i of the settings
    objects: list[SceneObject]
    states: dict[str, int]  # 0 or 1 for each *outside* family


def scene_states(settings: SceneSettings, split: str, index: int) -> dict[str, int]:
    """State of each cue in a picture.

    Pictures 2k and 2k + 1 have opposite states, and a coin of the pair decides which has which:
    every even number of pictures is balanced exactly, and the index tells nothing.
    """
    states = {}
    for number, family in enumerate(_OUTSIDE_SPRITES, start=1):
        if family in settings.families:
            seed = [settings.seed, SPLITS.index(split), index // 2, number]
            states[family] = int(np.random.default_rng(seed).integers(2)) ^ (index % 2)
    return states


def compose_scene(
    settings: SceneSettings, split: str, index: int, states: Mapping[str, int] | None = None
) -> Scene:
    """Paint one scene.

    Args:
        settings: of the set.
        split: "trainval" or "test".
        index: of the picture in its split; with the settings it fixes every pixel.
        states: to force the states of the cues. Only the cues and the names of the objects they
            decide about change, every other pixel stays.
    """
    rng = np.random.default_rng([settings.seed, SPLITS.index(split), index])
    states = {**scene_states(settings, split, index), **(states or {})}
    canvas = make_background(rng, settings.size)
    color = canvas.mean(axis=(0, 1))
    for family, (cue, top) in settings.cues.items():
        cue.draw(canvas, rng, states[family], top)
    layout = Layout(canvas, settings.classes)
    for family in settings.families:
        _add_family(layout, rng, family, states.get(family), settings.first_row(family), color)
    return Scene(finish(canvas, rng), layout.labels, layout.objects, states)


def _add_family(
    layout: Layout,
    rng: np.random.Generator,
    family: str,
    state: int | None,
    top: int,
    color: np.ndarray,
) -> None:
    """Add a random number of objects of one family, none above row ``top``."""
    if family == "inside":
        _add_cluster(layout, rng, top)
        return
    count = rng.integers(0, 3) if state is None else rng.integers(2, 5)
    for _ in range(int(count)):
        name = FAMILY_CLASSES[family][rng.integers(2) if state is None else state]
        draw = _ORDINARY_SPRITES[name] if state is None else _OUTSIDE_SPRITES[family]
        sprite = draw(rng, color)
        height, width = sprite.alpha.shape
        place = layout.reserve(rng, height, width, top)
        if place is not None:
            layout.stamp(name, sprite, *place)


def _add_cluster(layout: Layout, rng: np.random.Generator, top: int) -> None:
    """Add 2x2 to 3x4 tiles of about one size (8-14 px), 1-3 px apart, each of either class."""
    rows, columns = int(rng.integers(2, 4)), int(rng.integers(2, 5))
    size, gap = int(rng.integers(8, 15)), int(rng.integers(1, 4))
    pitch = size + gap
    place = layout.reserve(rng, rows * pitch - gap, columns * pitch - gap, top)
    if place is None:
        return
    for cell in range(rows * columns):
        number = int(rng.integers(2))
        sprite = sprites.tile(rng, max(8, size - int(rng.integers(2))), checked=number == 0)
        row, column = place[0] + cell // columns * pitch, place[1] + cell % columns * pitch
        layout.stamp(FAMILY_CLASSES["inside"][number], sprite, row, column)
