"""The cue of a scene lies outside what conv5 sees where it is pooled for an object."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from detectron2.layers import ShapeSpec
from scene_measures import OUTSIDE, resized, stored
from torchvision.ops import roi_align

from ion_d2.engine.setup import load_config
from ion_d2.modeling.backbone.vgg import build_ion_vgg_backbone
from ion_lab.scenes import SceneSettings, compose_scene
from ion_lab.scenes.geometry import (
    Layer,
    receptive_field,
    safe_distance,
    vgg_conv5_layers,
)

pytestmark = pytest.mark.slow

CONV5 = receptive_field(vgg_conv5_layers(16))


def first_roi_row(top, scale, stride):
    """The first feature row that RoIAlign can read for a box of such an upper edge in pixels.

    Detectron2's aligned RoIAlign takes its topmost samples no higher than this, in units of rows,
    and interpolates between that row and the next; RoIPool never starts above it. -1 is the border.
    """
    return math.floor(top * scale / stride - 0.5)


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
    # Batch renormalization gives nothing away in training either.
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
    """A thin VGG16 without normalization, random weights, float64."""
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
