"""VGG weights that do not fit the model are refused, or left out with a warning."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from vgg_models import Detector, Head, fake_state

from ion_d2.errors import IONError
from ion_d2.modeling.backbone.vgg import VGG
from ion_d2.modeling.backbone.vgg_weights import map_vgg_weights, recognize


def mapped(model, state):
    return map_vgg_weights(state, recognize(state), model)


def detector(*head, **vgg):
    with torch.device("meta"):
        return Detector(VGG(**vgg), Head(*head) if head else None)


@pytest.mark.parametrize(
    ("vgg", "file", "words"),
    [
        ({"depth": 16}, (11, False), "holds torchvision's VGG11, .* VGG16"),
        ({"depth": 11}, (16, False), "holds torchvision's VGG16, .* VGG11"),
        ({"norm": ""}, (16, True), 'VGG16 with batch norm.* has no normalization.*NORM "BN"'),
        ({"norm": "GN"}, (16, True), "VGG16 with batch norm.* has GroupNorm"),
        ({"norm": "GN"}, (16, False), 'has GroupNorm; .* MODEL.VGG.NORM ""'),
        ({"norm": "BN", "freeze_at": 5}, (16, False), "has FrozenBatchNorm2d"),
        ({"width_multiplier": 0.25}, (16, False), r"backbone.conv1_1.weight .*\(64, 3.* \(16,"),
        ({"in_channels": 1}, (16, False), r"conv1_1.weight .* \(64, 1, 3, 3\) in the model"),
    ],
)
def test_a_vgg_of_another_kind_is_refused(vgg, file, words):
    with pytest.raises(IONError, match=words):
        mapped(detector(**vgg), fake_state(*file))


def test_a_model_without_vgg_is_refused():
    with pytest.raises(IONError, match="VGG16, but the model has no VGG"):
        mapped(nn.Conv2d(3, 3, 3), fake_state(16))


@pytest.mark.parametrize("head", [(256 * 49, 4096), (512 * 49, 256)])
def test_unfit_fc_layers_are_left_out_with_one_warning(head, caplog):
    found = mapped(detector(*head), fake_state(16))
    assert set(found) == {f"backbone.{key}" for key in VGG(16, 0.125).state_dict()}
    assert len(caplog.records) == 1
    assert f"fc6.weight (4096, 25088) against {head[::-1]}" in caplog.text


def test_a_head_without_fc7_or_without_fc_layers(caplog):
    model = detector(512 * 49, 4096)
    del model.roi_heads.box_head.fc7
    assert not any("box_head" in key for key in mapped(model, fake_state(16)))
    assert "fc7.weight (4096, 4096) against none" in caplog.text
    caplog.clear()
    assert len(mapped(detector(), fake_state(16))) == 26
    assert caplog.text == ""


def test_fc_layers_of_nan_are_left_out(caplog):
    nan = torch.tensor(float("nan"))
    state = {
        key: nan.expand(value.shape) if key.startswith("classifier") else value
        for key, value in fake_state(16).items()
    }
    assert len(mapped(detector(512 * 49, 4096), state)) == 26
    assert "NaN" in caplog.text


RGB = ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])


@pytest.mark.parametrize(
    ("pixels", "warned"),
    [
        (RGB, None),
        ((RGB[0][::-1], RGB[1][::-1]), "pixel_mean"),  # BGR
        ((RGB[0][::-1], [1.0] * 3), "pixel_mean"),  # Detectron2's default
        ((RGB[0], [1.0] * 3), "pixel_std"),
    ],
)
def test_other_pixel_statistics_are_told(pixels, warned, caplog):
    model = detector()
    for name, values in zip(("pixel_mean", "pixel_std"), pixels):
        model.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)
    mapped(model, fake_state(16))
    assert len(caplog.records) == (warned is not None)
    assert warned is None or f"the model's {warned} is" in caplog.text
