"""The outside classes differ by their cue and by nothing near the object."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from scene_measures import OUTSIDE, at_chance, held_out_accuracy, stored

from ion_lab.scenes import SceneSettings, compose_scene
from ion_lab.scenes.compose import scene_states
from ion_lab.scenes.cues import mark_alpha
from ion_lab.scenes.geometry import safe_distance

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("cue", ["band", "balanced"])
def test_states_change_the_cue_and_the_names_alone(cue):
    settings = SceneSettings(families=(*OUTSIDE, "inside", "ordinary"), cue=cue, size=288)
    for index in range(6):
        scenes = [
            compose_scene(settings, "test", index, dict.fromkeys(OUTSIDE, state))
            for state in (0, 1)
        ]
        assert [item.box for item in scenes[0].objects] == [item.box for item in scenes[1].objects]
        names = [[item.name.split("_")[0] for item in scene.objects] for scene in scenes]
        assert names[0] == names[1]
        below = settings.cue_bottom
        assert np.array_equal(scenes[0].image[below:], scenes[1].image[below:])
        # JPEG's blocks of 8 px end below the cue, so that the same holds for the file.
        block = -(-below // 8) * 8
        files = [stored(scene.image) for scene in scenes]
        assert np.array_equal(files[0][block:], files[1][block:])
        assert not np.array_equal(files[0][:block], files[1][:block])


@pytest.mark.parametrize("split", ["trainval", "test"])
def test_states_are_balanced_and_follow_no_simple_order(split):
    settings = SceneSettings(families=OUTSIDE)
    count, states = 400, {family: [] for family in OUTSIDE}
    for index in range(count):
        drawn = scene_states(settings, split, index)
        for family in OUTSIDE:
            states[family].append(drawn[family])
    outside, far = (np.array(states[family]) for family in OUTSIDE)
    assert outside.sum() == far.sum() == count // 2
    for relation in (outside == far, outside == np.arange(count) % 2):
        assert 0.4 < relation.mean() < 0.6


def lamp_features(pictures, above: int) -> np.ndarray:
    """Coarse colors around the first lamp, from ``above`` rows over it to the bottom."""
    rows = []
    for image, box in pictures:
        padded = cv2.copyMakeBorder(
            image, 256, 256, 256, 256, cv2.BORDER_CONSTANT, value=(128,) * 3
        )
        x, y = (box[0] + box[2]) // 2 + 256, box[1] + 256
        crop = padded[y - above : y + 136, x - 136 : x + 136]
        lamp = padded[box[1] + 256 : box[3] + 256, box[0] + 256 : box[2] + 256]
        parts = (cv2.resize(crop, (7, 12), interpolation=cv2.INTER_AREA), cv2.resize(lamp, (4, 4)))
        rows.append(np.concatenate([part.ravel() for part in parts]))
    return np.array(rows, dtype=np.float64)


@pytest.fixture(scope="module")
def lamp_scenes():
    """Scenes with lamps alone, and their states."""
    settings = SceneSettings(families=("outside",))
    scenes = [compose_scene(settings, "trainval", index) for index in range(700)]
    return scenes, np.array([scene.states["outside"] for scene in scenes])


def test_a_classifier_sees_lamps_at_chance_and_the_band_at_once(lamp_scenes):
    scenes, labels = lamp_scenes
    pictures = [(scene.image, scene.objects[0].box) for scene in scenes]
    reach = safe_distance(240 / 256, margin=0)
    blind = held_out_accuracy(lamp_features(pictures, reach), labels, ridge=100)
    assert at_chance(blind, len(labels)), blind
    whole = held_out_accuracy(lamp_features(pictures, 250), labels, ridge=10)
    assert whole > 0.9, whole
    band = np.array([cv2.resize(image[:24], (4, 1)).ravel() for image, _ in pictures])
    assert held_out_accuracy(band.astype(float), labels) > 0.97
    flipped = np.array([cv2.resize(image[:24, ::-1], (4, 1)).ravel() for image, _ in pictures])
    cut = int(0.6 * len(labels))
    assert held_out_accuracy(np.vstack([band[:cut], flipped[cut:]]).astype(float), labels) > 0.97


def network_accuracy(crops: np.ndarray, labels: np.ndarray) -> float:
    """Train a small convolutional network on the first 60 %, return its accuracy on the rest."""
    torch.manual_seed(0)
    x = torch.tensor(crops).permute(0, 3, 1, 2).float() / 128 - 1
    y = torch.tensor(labels).long()
    cut = int(0.6 * len(y))
    network = torch.nn.Sequential(
        *(torch.nn.Conv2d(3, 16, 3), torch.nn.ReLU(), torch.nn.Conv2d(16, 16, 3), torch.nn.ReLU()),
        *(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(16, 2)),
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(20):
        for batch in torch.randperm(cut).split(32):
            loss = torch.nn.functional.cross_entropy(network(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        return float((network(x[cut:]).argmax(1) == y[cut:]).float().mean())


def squares(image: np.ndarray, boxes, side: int) -> list:
    """The squares of ``side`` pixels about the boxes' middles."""
    padded = np.pad(image, ((side, side), (side, side), (0, 0)), mode="edge")
    corners = [((y0 + y1 + side) // 2, (x0 + x1 + side) // 2) for x0, y0, x1, y1 in boxes]
    return [padded[y : y + side, x : x + side] for y, x in corners]


def test_a_network_tells_tiles_apart_by_their_pixels_and_lamps_not(lamp_scenes):
    scenes, states = lamp_scenes
    lamps = [squares(stored(s.image), [s.objects[0].box], 40)[0][::2, ::2] for s in scenes]
    blind = network_accuracy(np.array(lamps), states)
    assert at_chance(blind, len(states)), blind
    bands = [
        cv2.resize(scene.image[:24], (20, 20), interpolation=cv2.INTER_AREA) for scene in scenes
    ]
    assert network_accuracy(np.array(bands), states) > 0.97
    tiles, textures = [], []
    for index in range(50):
        scene = compose_scene(SceneSettings(families=("inside",)), "trainval", index)
        tiles += squares(stored(scene.image), [item.box for item in scene.objects], 8)
        textures += [item.name == "tile_checked" for item in scene.objects]
    assert network_accuracy(np.array(tiles), np.array(textures)) > 0.9


@pytest.mark.parametrize(("cue", "tolerance"), [("band", 0.3), ("balanced", 0.1)])
def test_both_states_are_equally_bright(cue, tolerance):
    settings = SceneSettings(families=("outside",), cue=cue)
    for index in range(5):
        means = [
            compose_scene(settings, "test", index, {"outside": state}).image.mean(axis=(0, 1))
            for state in (0, 1)
        ]
        assert abs((means[0] - means[1]) @ [0.299, 0.587, 0.114]) < tolerance
        if cue == "balanced":
            assert np.abs(means[0] - means[1]).max() < tolerance


def test_marks_have_equal_area_and_survive_a_flip():
    disc, ring = mark_alpha(0), mark_alpha(1)
    assert disc.sum() == pytest.approx(ring.sum(), rel=0.02)
    assert disc[11:13, 11:13].min() == 1 and ring[11:13, 11:13].max() == 0
    for alpha in (disc, ring):
        assert np.array_equal(alpha, alpha[:, ::-1])
        ys, xs = np.nonzero(alpha > 0.5)
        assert 17 <= np.ptp(ys) + 1 <= 20 and np.ptp(xs) == np.ptp(ys)
