from __future__ import annotations

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, build_backbone
from torch import nn

from ion_d2.config import add_ion_config
from ion_d2.errors import IONError
from ion_d2.modeling.backbone.vgg import VGG

ALL = ("conv1", "conv2", "conv3", "conv4", "conv5")


def tiny(**kwargs):
    return VGG(**{"depth": 11, "width_multiplier": 0.125, "out_features": ALL, **kwargs})


# Convolution weights of the published configurations A, B, D and E of VGG, counted by hand:
# sum over the convolutions of 9 * in * out + out.
@pytest.mark.parametrize(
    ("depth", "convs", "parameters"),
    [(11, 8, 9220480), (13, 10, 9404992), (16, 13, 14714688), (19, 16, 20024384)],
)
def test_full_width_has_the_published_size(depth, convs, parameters):
    vgg = VGG(depth=depth)
    assert sum(p.numel() for p in vgg.parameters()) == parameters
    assert len(list(vgg.children())) == convs


def test_parameter_names():
    names = {name for name, _ in VGG(depth=16, width_multiplier=0.125).named_parameters()}
    blocks = {1: 2, 2: 2, 3: 3, 4: 3, 5: 3}
    convs = [f"conv{b}_{i}" for b, n in blocks.items() for i in range(1, n + 1)]
    assert names == {f"{conv}.{kind}" for conv in convs for kind in ("weight", "bias")}


@pytest.mark.parametrize("norm", ["GN", "BN", "BRN"])
def test_gains_change_a_feature_and_nothing_behind_it(norm):
    plain, loud = (tiny(norm=norm, gains=(1, g, g, 1, 1)).train() for g in (1.0, 30.0))
    convolutions = {k: v for k, v in plain.state_dict().items() if ".norm" not in k}
    loud.load_state_dict(convolutions, strict=False)
    x = torch.randn(2, 3, 64, 64)
    expected, outputs = plain(x), loud(x)
    for name, gain in zip(ALL, (1, 30, 30, 1, 1)):
        torch.testing.assert_close(outputs[name], gain * expected[name], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("height", "width"), [(32, 48), (37, 50), (16, 31)])
def test_shapes_agree_with_output_shape_at_any_size(height, width):
    vgg = tiny()
    outputs = vgg(torch.zeros(2, 3, height, width))
    shapes = vgg.output_shape()
    assert list(outputs) == list(shapes) == list(ALL)
    for name, stride in zip(ALL, (1, 2, 4, 8, 16)):
        expected = (2, shapes[name].channels, height // stride, width // stride)
        assert shapes[name].stride == stride and outputs[name].shape == expected
    assert [shapes[name].channels for name in ALL] == [8, 16, 32, 64, 64]
    assert vgg.size_divisibility == 0


def test_features_are_what_the_same_layers_give_one_by_one():
    torch.manual_seed(0)
    vgg = tiny(depth=13)
    for parameter in vgg.parameters():
        nn.init.normal_(parameter, std=0.2)
    x = expected = torch.randn(1, 3, 40, 33)
    outputs = vgg(x)
    for block in range(1, 6):
        if block > 1:
            expected = nn.MaxPool2d(2)(expected)
        for index in (1, 2):
            conv = getattr(vgg, f"conv{block}_{index}")
            expected = nn.functional.conv2d(expected, conv.weight, conv.bias, padding=1).relu()
        torch.testing.assert_close(outputs[f"conv{block}"], expected)
        assert (outputs[f"conv{block}"] == 0).any()


def test_cells_stay_aligned_with_pixels_when_a_side_is_no_multiple_of_16():
    torch.manual_seed(0)
    vgg = tiny(out_features=["conv5"], norm="")
    image = torch.randn(1, 3, 160, 160)
    whole = vgg(image)["conv5"]
    cut = vgg(image[:, :, :, :155])["conv5"]
    # Cells far enough from the cut never see it: they must be the very same.
    torch.testing.assert_close(cut[..., :4], whole[..., :4])


@pytest.mark.parametrize(
    ("multiplier", "widths"),
    [(0.25, [16, 32, 64, 128, 128]), (0.1, [8, 16, 24, 48, 48]), (0.01, [8] * 5), (0.001, [8] * 5)],
)
def test_widths_are_multiples_of_eight(multiplier, widths):
    shapes = tiny(width_multiplier=multiplier).output_shape()
    assert [shapes[name].channels for name in ALL] == widths


@pytest.mark.parametrize("norm", ["GN", "BN", "BRN", "SyncBN", "FrozenBN"])
@pytest.mark.parametrize("multiplier", [0.1, 0.25, 1.0])
def test_every_norm_builds_at_every_width(norm, multiplier):
    vgg = VGG(depth=11, width_multiplier=multiplier, norm=norm)
    assert all(conv.norm is not None and conv.bias is None for conv in vgg.children())
    if norm != "SyncBN":  # which runs on CUDA only
        assert vgg(torch.randn(2, 3, 32, 32))["conv5"].isfinite().all()


def test_group_norm_groups():
    groups = {c.norm.num_channels: c.norm.num_groups for c in VGG(norm="GN").children()}
    assert groups == {64: 32, 128: 32, 256: 32, 512: 32}
    narrow = {c.norm.num_channels: c.norm.num_groups for c in tiny(norm="GN").children()}
    assert narrow == {8: 1, 16: 2, 32: 4, 64: 32}


def test_only_the_needed_blocks_are_built():
    vgg = VGG(depth=16, width_multiplier=0.125, out_features=["conv2", "conv3"], freeze_at=5)
    assert {name[:5] for name, _ in vgg.named_parameters()} == {"conv1", "conv2", "conv3"}
    assert set(vgg(torch.zeros(1, 3, 8, 8))) == {"conv2", "conv3"}
    assert set(vgg.output_shape()) == {"conv2", "conv3"}


@pytest.mark.parametrize("norm", ["", "GN", "BN", "BRN"])
@pytest.mark.parametrize("freeze_at", range(6))
def test_freeze_at_stops_exactly_the_first_blocks(freeze_at, norm):
    torch.manual_seed(0)
    vgg = tiny(norm=norm, freeze_at=freeze_at).train()
    before = {k: v.clone() for k, v in vgg.state_dict().items()}
    trained = [p for p in vgg.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained or [nn.Parameter()], 1)
    loss = sum(feature.square().sum() for feature in vgg(torch.randn(2, 3, 32, 32)).values())
    if loss.requires_grad:
        loss.backward()
    optimizer.step()
    for key, value in vgg.state_dict().items():
        moved = not torch.equal(value, before[key])
        assert moved == (int(key[4]) > freeze_at), key


def test_gradients_pass_through_frozen_batch_norm():
    torch.manual_seed(0)
    vgg = tiny(norm="FrozenBN").train()
    vgg(torch.randn(2, 3, 32, 32))["conv5"].sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in vgg.parameters())


def test_random_start_keeps_the_signal_alive_through_19_layers():
    torch.manual_seed(0)
    outputs = VGG(depth=19, width_multiplier=0.5, out_features=ALL)(torch.randn(1, 3, 64, 64))
    scales = [outputs[name].square().mean().sqrt().item() for name in ALL]
    assert all(0.1 < scale < 10 for scale in scales), scales


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"depth": 18}, "MODEL.VGG.DEPTH"),
        ({"width_multiplier": 0}, "MODEL.VGG.WIDTH_MULTIPLIER"),
        ({"width_multiplier": float("nan")}, "MODEL.VGG.WIDTH_MULTIPLIER"),
        ({"out_features": ["conv3", "conv6"]}, "MODEL.VGG.OUT_FEATURES.*conv6"),
        ({"out_features": []}, "MODEL.VGG.OUT_FEATURES"),
        ({"freeze_at": 6}, "MODEL.BACKBONE.FREEZE_AT is 6"),
        ({"freeze_at": -1}, "MODEL.BACKBONE.FREEZE_AT is -1"),
        ({"norm": "Bn"}, "MODEL.VGG.NORM is 'Bn'"),
        ({"gains": (1, 1, 1, 1), "norm": "GN"}, "a list of 5"),
        ({"gains": (1, 1, 0, 1, 1), "norm": "GN"}, "above 0"),
        ({"gains": (1, 1, 2, 1, 1), "norm": ""}, "NORM"),
        ({"gains": (1, 1, 2, 1, 1), "norm": "FrozenBN"}, "NORM"),
    ],
)
def test_bad_arguments_name_the_config_key(arguments, key):
    with pytest.raises(IONError, match=key):
        tiny(**arguments)


def test_the_smallest_image_and_batch():
    assert tiny()(torch.zeros(0, 3, 16, 16))["conv5"].shape == (0, 64, 1, 1)
    with pytest.raises(IONError, match="15x40 pixels .* conv5 .* INPUT.MIN_SIZE_TRAIN"):
        tiny()(torch.zeros(1, 3, 15, 40))


@pytest.mark.parametrize(
    ("width", "training", "keys"),
    [
        (99, False, "INPUT.MIN_SIZE_TRAIN and INPUT.MIN_SIZE_TEST or"),
        (100, False, "INPUT.MIN_SIZE_TRAIN, INPUT.MIN_SIZE_TEST and INPUT.MAX_SIZE_TEST or"),
        (100, True, "INPUT.MIN_SIZE_TRAIN and INPUT.MIN_SIZE_TEST or"),
        (200, True, "INPUT.MIN_SIZE_TRAIN, INPUT.MIN_SIZE_TEST and INPUT.MAX_SIZE_TRAIN or"),
    ],
)
def test_an_image_that_the_longest_side_makes_thin_is_told_so(width, training, keys):
    cfg = get_cfg()
    add_ion_config(cfg)
    cfg.INPUT.MAX_SIZE_TEST, cfg.INPUT.MAX_SIZE_TRAIN = 100, 200
    vgg = tiny().remember(cfg).train(training)
    with pytest.raises(IONError, match=keys):
        vgg(torch.zeros(1, 3, 2, width))


def test_built_from_a_config():
    cfg = get_cfg()
    add_ion_config(cfg)
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.FREEZE_AT = "build_ion_vgg_backbone", 3
    cfg.MODEL.VGG.DEPTH, cfg.MODEL.VGG.WIDTH_MULTIPLIER = 13, 0.25
    cfg.MODEL.VGG.NORM, cfg.MODEL.VGG.OUT_FEATURES = "GN", ["conv2", "conv5"]
    vgg = build_backbone(cfg)
    assert vgg.depth == 13
    assert vgg.output_shape()["conv5"] == ShapeSpec(channels=128, stride=16)
    trained = {name[:5] for name, p in vgg.named_parameters() if p.requires_grad}
    assert trained == {"conv4", "conv5"}
    one_channel = BACKBONE_REGISTRY.get("build_ion_vgg_backbone")(cfg, ShapeSpec(channels=1))
    assert one_channel.conv1_1.weight.shape[1] == 1
