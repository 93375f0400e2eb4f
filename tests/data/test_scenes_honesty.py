"""Scenes keep their promise: no leak of the cue, no shortcut to the texture, cues out of sight."""

from __future__ import annotations

import copy
import io
import math

import cv2
import numpy as np
import pytest
import torch
from detectron2.layers import ShapeSpec
from PIL import Image
from torchvision.ops import roi_align

from ion_d2.data.scenes import SceneSettings, compose_scene
from ion_d2.data.scenes.compose import scene_states
from ion_d2.data.scenes.cues import mark_alpha
from ion_d2.data.scenes.geometry import (
    Layer,
    first_roi_row,
    receptive_field,
    safe_distance,
    vgg_conv5_layers,
)
from ion_d2.data.scenes.sprites import tile
from ion_d2.engine.setup import load_config
from ion_d2.modeling.backbone.vgg import build_ion_vgg_backbone

CONV5 = receptive_field(vgg_conv5_layers(16))
OUTSIDE = ("outside", "outside-far")


def stored(image: np.ndarray) -> np.ndarray:
    """The picture as it is read back from disk."""
    data = io.BytesIO()
    Image.fromarray(image).save(data, "JPEG", quality=95, subsampling=0)
    return np.asarray(Image.open(data))


def resized(image: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((side, side), Image.BILINEAR))


def held_out_accuracy(features: np.ndarray, labels: np.ndarray, ridge: float = 1.0) -> float:
    """Train ridge regression on the first 60 %, return its accuracy on the rest."""
    cut = int(0.6 * len(labels))
    x = (features - features[:cut].mean(0)) / (features[:cut].std(0) + 1e-6)
    x = np.hstack([x, np.ones((len(x), 1))])
    a, b = x[:cut], 2.0 * labels[:cut] - 1
    weights = np.linalg.solve(a.T @ a + ridge * np.eye(a.shape[1]), a.T @ b)
    return float((((x[cut:] @ weights) > 0) == labels[cut:]).mean())


def at_chance(accuracy: float, total: int) -> bool:
    """Within 3.3 standard deviations of a fair coin over the held-out 40 %."""
    return abs(accuracy - 0.5) < 3.3 * 0.5 / math.sqrt(0.4 * total)


# --- conv5's sight


def test_receptive_field_of_vgg16_conv5():
    assert CONV5 == (196, 16, -90)
    assert CONV5.span(0) == (-90, 106)
    assert receptive_field([Layer(3, 1, 1), Layer(2, 2, 0), Layer(3, 1, 1)]) == (8, 2, -3)


@pytest.mark.parametrize("depth", [11, 13, 16, 19])
def test_receptive_field_equals_the_reach_of_gradients(depth):
    x = torch.zeros(1, 1, 640, requires_grad=True, dtype=torch.float64)
    y = x
    for layer in vgg_conv5_layers(depth):
        kernel = torch.ones(1, 1, layer.kernel, dtype=torch.float64) / layer.kernel
        y = torch.nn.functional.conv1d(y, kernel, stride=layer.stride, padding=layer.padding)
    y[0, 0, 18].backward()
    touched = torch.nonzero(x.grad[0, 0]).flatten()
    span = receptive_field(vgg_conv5_layers(depth)).span(18)
    assert (int(touched[0]), int(touched[-1]) + 1) == span


@pytest.mark.parametrize("cue", ["band", "balanced"])
@pytest.mark.parametrize("families", [("outside",), ("outside-far",), OUTSIDE])
def test_cue_is_outside_the_field_of_every_cell_pooled_for_an_object(families, cue):
    settings = SceneSettings(families=families, cue=cue)
    tops = {name: [] for name in settings.cues}
    for index in range(60):
        scene = compose_scene(settings, "trainval", index)
        for item in scene.objects:
            family = "outside" if item.name.startswith("lamp") else "outside-far"
            tops[family].append(item.box[1])
    for family, (placed, top) in settings.cues.items():
        bottom = top + placed.height
        for side in (240, 256, 320):
            scale = side / 256
            cells = [first_roi_row(y, scale, CONV5.stride) for y in tops[family]]
            # Bilinear resizing carries the cue down by at most one pixel of the coarser picture.
            reached = math.ceil(bottom * scale + max(1.0, scale))
            assert min(CONV5.span(cell)[0] for cell in cells) >= reached
        assert max(tops[family]) - min(tops[family]) > 15


def seen_rows(
    norm: str, row: int, image_rows: range, peak: float, training: bool = False
) -> list[bool]:
    """Whether a row of the small ION's own conv5 changes with a peak in each row of the image."""
    config = load_config("configs/ion_study.yaml", ["MODEL.VGG.NORM", norm])
    torch.manual_seed(0)
    conv5 = build_ion_vgg_backbone(config, ShapeSpec(channels=3)).double().eval()
    with torch.no_grad():
        if peak > 1:  # positive weights let it pass every ReLU and pooling
            for parameter in conv5.parameters():
                parameter.abs_()
        image = torch.rand(1, 3, 416, 16, dtype=torch.float64)
        conv5.train(training)(image)  # in training, the first batch is the past of the next
        before = copy.deepcopy(conv5)(image)["conv5"][:, :, row]
        changes = []
        for changed in image_rows:
            other = image.clone()
            other[:, :, changed] += peak
            after = copy.deepcopy(conv5)(other)["conv5"][:, :, row]
            changes.append(not torch.equal(after, before))
    return changes


def test_the_field_of_the_model_that_is_studied():
    first, end = CONV5.span(12)
    # BatchNorm's statistics are constants at test time.
    for norm in ("", "BN", "BRN"):
        assert seen_rows(norm, 12, range(first - 1, first + 1), 1e6) == [False, True]
        assert seen_rows(norm, 12, range(end - 1, end + 1), 1e6) == [True, False]
    # GroupNorm has no field: it gives the cue away to every cell. Nor has BatchNorm in training.
    assert seen_rows("GN", 12, range(first - 1, first), 1.0) == [True]
    assert seen_rows("BN", 12, range(first - 1, first), 1.0, training=True) == [True]
    # Batch renormalisation gives nothing away in training either.
    for row, expected in ((first - 1, False), (first, True), (end - 1, True), (end, False)):
        assert seen_rows("BRN", 12, range(row, row + 1), 1e6, training=True) == [expected]


def test_safe_distance_covers_every_row_and_is_not_lavish():
    def seen(distance, scale, top):
        return CONV5.span(first_roi_row(top + distance, scale, 16))[0] < top * scale

    for scale in (240 / 256, 1.0, 0.5):
        distance = safe_distance(scale, margin=0)
        assert not any(seen(distance, scale, top) for top in range(64))
        assert any(seen(distance - 6 / scale, scale, top) for top in range(64))


def conv5_of(image: np.ndarray) -> torch.Tensor:
    """A thin VGG16 without normalisation, random weights, float64."""
    torch.manual_seed(0)
    y = torch.tensor(image).permute(2, 0, 1)[None].double() / 128 - 1
    for layer in vgg_conv5_layers(16):
        if layer.kernel == 2:
            y = torch.nn.functional.max_pool2d(y, 2)
        else:
            weight = torch.randn(6, y.shape[1], 3, 3, dtype=torch.float64)
            weight *= (2 / weight[0].numel()) ** 0.5
            y = torch.relu(torch.nn.functional.conv2d(y, weight, padding=1))
    return y


@pytest.mark.parametrize("side", [240, 256])
def test_what_conv5_pools_for_an_object_does_not_depend_on_the_state(side):
    def difference(settings, index):
        pooled = []
        for state in (0, 1):
            scene = compose_scene(settings, "test", index, {"outside": state})
            boxes = torch.tensor([item.box for item in scene.objects]).double() * (side / 256)
            conv5 = conv5_of(resized(stored(scene.image), side))
            pooled.append(roi_align(conv5, [boxes], 7, 1 / 16, 0, aligned=True))
        return float((pooled[0] - pooled[1]).abs().max() / pooled[0].abs().max())

    far = SceneSettings(families=("outside",))
    near = SceneSettings(families=("outside",), distance=8)
    assert max(difference(far, index) for index in range(4)) < 1e-9
    assert max(difference(near, index) for index in range(4)) > 1e-3


# --- outside: nothing but the cue tells


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
    """Coarse colours around the first lamp, from ``above`` rows over it to the bottom."""
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


# --- inside: texture tells, colour does not


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
    grey = (inner - inner.mean()) / inner.std()
    n = len(grey)

    def lag(dy, dx):
        return float((grey[: n - dy, : grey.shape[1] - dx] * grey[dy:, dx:]).mean())

    straight = sorted((lag(0, 2), lag(2, 0)))
    return [*straight, lag(2, 2), straight[1] - straight[0]]


@pytest.mark.parametrize("side", [240, 256])
def test_texture_tells_the_tiles_apart_and_colour_does_not(side):
    crops, labels = tile_crops(side, flip=False)
    texture = np.array([correlations(crop) for crop in crops])
    assert held_out_accuracy(texture, labels) > 0.97
    flipped = np.array([correlations(crop) for crop in tile_crops(side, flip=True)[0]])
    cut = int(0.6 * len(labels))
    assert held_out_accuracy(np.vstack([texture[:cut], flipped[cut:]]), labels) > 0.97
    colour = np.array([[*crop.mean(axis=(0, 1)), *crop.shape[:2]] for crop in crops])
    assert at_chance(held_out_accuracy(colour, labels), len(labels))
    assert 0.45 < labels.mean() < 0.55


def test_textures_have_equal_mean_and_contrast():
    for seed in range(20):
        for checked in (True, False):
            sprite = tile(np.random.default_rng(seed), 8 + seed % 7, checked)
            pixels = sprite.colour[sprite.alpha > 0]
            assert pixels.std(axis=0) == pytest.approx(np.full(3, 36.0), rel=1e-3)
            assert ((pixels.mean(axis=0) > 84) & (pixels.mean(axis=0) < 171)).all()
            assert len(np.unique(pixels[:, 0])) == 2
