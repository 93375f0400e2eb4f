"""VGG weights that do not fit the model are refused, or left out with a warning."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from vgg_models import Detector, Head, fake_state

from ion_d2.errors import IONError
from ion_d2.modeling.backbone.vgg import VGG
from ion_d2.modeling.backbone.vgg_weights import map_vgg_weights, recognize


@pytest.mark.parametrize(
    ("vgg", "file", "message"),
    [
        ({"depth": 16}, (11, False), "holds torchvision's VGG11, but the model is a VGG16"),
        ({"depth": 11}, (16, False), "holds torchvision's VGG16, but the model is a VGG11"),
        ({"norm": ""}, (16, True), 'VGG16 with batch norm.* has no normalization.*NORM "BN"'),
        ({"norm": "GN"}, (16, True), "VGG16 with batch norm.* has GroupNorm"),
        ({"norm": "GN"}, (16, False), 'has GroupNorm; these weights need MODEL.VGG.NORM ""'),
        ({"norm": "BN", "freeze_at": 5}, (16, False), "has FrozenBatchNorm2d"),
        (
            {"width_multiplier": 0.25},
            (16, False),
            r"backbone.conv1_1.weight has shape \(64, 3, 3, 3\) in MODEL.WEIGHTS but \(16,",
        ),
        ({"in_channels": 1}, (16, False), r"conv1_1.weight .* \(64, 1, 3, 3\) in the model"),
    ],
)
def test_a_vgg_of_another_kind_is_refused(vgg, file, message):
    state = fake_state(*file)
    with torch.device("meta"):
        model = Detector(VGG(**vgg))
    with pytest.raises(IONError, match=message):
        map_vgg_weights(state, recognize(state), model)


def test_a_model_without_vgg_is_refused():
    state = fake_state(16)
    with pytest.raises(IONError, match="holds torchvision's VGG16, but the model has no VGG"):
        map_vgg_weights(state, recognize(state), nn.Conv2d(3, 3, 3))


@pytest.mark.parametrize("head", [(256 * 49, 4096), (512 * 49, 256)])
def test_unfit_fc_layers_are_left_out_with_one_warning(head, caplog):
    with torch.device("meta"):
        model = Detector(VGG(16), Head(*head))
    state = fake_state(16)
    mapped = map_vgg_weights(state, recognize(state), model)
    assert set(mapped) == {f"backbone.{key}" for key in VGG(16, 0.125).state_dict()}
    assert len(caplog.records) == 1
    assert f"fc6.weight (4096, 25088) against {head[::-1]}" in caplog.text


def test_a_head_without_fc7_or_without_fc_layers(caplog):
    state = fake_state(16)
    with torch.device("meta"):
        model = Detector(VGG(16), Head())
    del model.roi_heads.box_head.fc7
    mapped = map_vgg_weights(state, recognize(state), model)
    assert not any("box_head" in key for key in mapped)
    assert "fc7.weight (4096, 4096) against none" in caplog.text
    caplog.clear()
    with torch.device("meta"):
        model = Detector(VGG(16))
    assert len(map_vgg_weights(state, recognize(state), model)) == 26
    assert caplog.text == ""


def test_fc_layers_of_nan_are_left_out(caplog):
    state = fake_state(16)
    for key in state:
        if key.startswith("classifier"):
            state[key] = torch.full((), float("nan")).expand(state[key].shape)
    with torch.device("meta"):
        model = Detector(VGG(16), Head())
    mapped = map_vgg_weights(state, recognize(state), model)
    assert len(mapped) == 26
    assert "NaN" in caplog.text


RGB = ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
BGR = ([103.53, 116.28, 123.675], [57.375, 57.12, 58.395])
D2_DEFAULT = ([103.53, 116.28, 123.675], [1.0, 1.0, 1.0])


@pytest.mark.parametrize(
    ("pixels", "warned"),
    [
        (RGB, None),
        (BGR, "pixel_mean"),
        (D2_DEFAULT, "pixel_mean"),
        ((RGB[0], [1.0] * 3), "pixel_std"),
    ],
)
def test_other_pixel_statistics_are_told(pixels, warned, caplog):
    with torch.device("meta"):
        model = Detector(VGG(16))
    for name, values in zip(("pixel_mean", "pixel_std"), pixels):
        model.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)
    state = fake_state(16)
    map_vgg_weights(state, recognize(state), model)
    if warned is None:
        assert caplog.text == ""
    else:
        assert len(caplog.records) == 1
        assert "INPUT.FORMAT RGB" in caplog.text and f"the model's {warned} is" in caplog.text
