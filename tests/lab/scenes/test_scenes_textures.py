"""The inside classes differ by their texture: color, size and contrast do not tell."""

from __future__ import annotations

import numpy as np
import pytest
from scene_measures import at_chance, held_out_accuracy, resized, stored

from ion_lab.scenes import SceneSettings, compose_scene
from ion_lab.scenes.sprites import tile

pytestmark = pytest.mark.slow


def tile_crops(side: int, flip: bool):
    crops, labels = [], []
    scale = side / 256
    for index in range(50):
        scene = compose_scene(SceneSettings(families=("inside",)), "trainval", index)
        image = resized(stored(scene.image), side)
        for item in scene.objects:
            x0, y0, x1, y1 = (round(edge * scale) for edge in item.box)
            crop = image[y0:y1, x0:x1].astype(float)
            crops.append(crop[:, ::-1] if flip else crop)
            labels.append(item.name == "tile_checked")
    return crops, np.array(labels)


def correlations(crop: np.ndarray) -> list:
    """Autocorrelation of the brightness in the middle of a tile, blind to direction."""
    inner = crop.mean(axis=2)[1:-1, 1:-1]
    gray = (inner - inner.mean()) / inner.std()
    n = len(gray)

    def lag(dy, dx):
        return float((gray[: n - dy, : gray.shape[1] - dx] * gray[dy:, dx:]).mean())

    straight = sorted((lag(0, 2), lag(2, 0)))
    return [*straight, lag(2, 2), straight[1] - straight[0]]


@pytest.mark.parametrize("side", [240, 256])
def test_texture_tells_the_tiles_apart_and_color_does_not(side):
    crops, labels = tile_crops(side, flip=False)
    texture = np.array([correlations(crop) for crop in crops])
    assert held_out_accuracy(texture, labels) > 0.97
    flipped = np.array([correlations(crop) for crop in tile_crops(side, flip=True)[0]])
    cut = int(0.6 * len(labels))
    assert held_out_accuracy(np.vstack([texture[:cut], flipped[cut:]]), labels) > 0.97
    color = np.array([[*crop.mean(axis=(0, 1)), *crop.shape[:2]] for crop in crops])
    assert at_chance(held_out_accuracy(color, labels), len(labels))
    assert 0.45 < labels.mean() < 0.55


def test_textures_have_equal_mean_and_contrast():
    for seed in range(20):
        for checked in (True, False):
            sprite = tile(np.random.default_rng(seed), 8 + seed % 7, checked)
            pixels = sprite.color[sprite.alpha > 0]
            assert pixels.std(axis=0) == pytest.approx(np.full(3, 36.0), rel=1e-3)
            assert ((pixels.mean(axis=0) > 84) & (pixels.mean(axis=0) < 171)).all()
            assert len(np.unique(pixels[:, 0])) == 2
