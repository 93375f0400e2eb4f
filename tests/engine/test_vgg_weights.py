"""Loaded weights must make our VGG and box head compute what torchvision's model computes."""

from __future__ import annotations

import logging

import pytest
import torch
import torchvision
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads.box_head import FastRCNNConvFCHead
from torch import nn
from torch.nn import functional as F

from ion_d2.engine.checkpoint import IONCheckpointer
from ion_d2.engine.vgg_weights import VGGLayout, map_vgg_weights, recognise
from ion_d2.errors import IONError
from ion_d2.modeling.backbone.vgg import VGG

ALL = ("conv1", "conv2", "conv3", "conv4", "conv5")


class Head(nn.Module):
    """fc6 and fc7 by ION's names."""

    def __init__(self, inputs=512 * 49, width=4096):
        super().__init__()
        self.fc6 = nn.Linear(inputs, width)
        self.fc7 = nn.Linear(width, width)

    def forward(self, x):
        return F.relu(self.fc7(F.relu(self.fc6(x.flatten(1)))))


class Detector(nn.Module):
    """What the mapping sees of a detector: where the VGG and the box head are."""

    def __init__(self, vgg, head=None, nested=False):
        super().__init__()
        self.backbone = nn.Module() if nested else vgg
        if nested:
            self.backbone.bottom_up = vgg
        self.vgg = [vgg]  # in a list, so that it is not registered under a second name
        self.roi_heads = nn.Module()
        self.roi_heads.box_head = head or nn.Identity()


def poisoned(build):
    """Build a model without its slow random start: every value is NaN until it is loaded."""
    with torch.device("meta"):
        model = build()
    model = model.to_empty(device="cpu")
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.fill_(float("nan"))
    return model.eval()


def randomise(module):
    """Random weights that keep the scale of the signal, with biases far from zero."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.normal_(layer.bias, std=0.3)
        elif isinstance(layer, nn.BatchNorm2d):
            for value in (layer.weight, layer.running_var):
                nn.init.uniform_(value, 0.5, 1.5)
            for value in (layer.bias, layer.running_mean):
                nn.init.normal_(value, std=0.3)
            layer.num_batches_tracked.fill_(7)


def published(depth, batch_norm=False, classifier=None):
    """torchvision's model with random weights."""
    with torch.device("meta"):
        model = getattr(torchvision.models, f"vgg{depth}{'_bn' * batch_norm}")(weights=None)
    model.features = model.features.to_empty(device="cpu")
    randomise(model.features)
    if classifier is None:
        classifier = nn.Sequential()
    model.classifier = classifier
    return model.eval()


def fake_state(depth, batch_norm=False):
    """A full-size state dict of zeros that takes no memory."""
    with torch.device("meta"):
        model = getattr(torchvision.models, f"vgg{depth}{'_bn' * batch_norm}")(weights=None)
    return {key: torch.zeros(()).expand(value.shape) for key, value in model.state_dict().items()}


def assert_equal_to_scale(actual, expected):
    assert actual.shape == expected.shape
    assert expected.abs().max() > 0.1
    assert (actual - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.fixture(scope="module")
def classifier():
    """One full-size classifier for both depths, since its 124 million weights are slow to draw."""
    torch.manual_seed(16)
    with torch.device("meta"):
        layers = torchvision.models.vgg16(weights=None).classifier
    layers = layers.to_empty(device="cpu")
    randomise(layers)
    return layers.eval()


def d2_head():
    return FastRCNNConvFCHead(
        ShapeSpec(channels=512, height=7, width=7), conv_dims=[], fc_dims=[4096, 4096]
    )


@pytest.mark.parametrize(
    ("depth", "nested", "head"), [(16, True, Head), (11, False, Head), (11, True, d2_head)]
)
@torch.no_grad()
def test_features_and_fc7_equal_torchvision(depth, nested, head, classifier, tmp_path, caplog):
    torch.manual_seed(depth)
    theirs = published(depth, classifier=classifier)
    path = tmp_path / "vgg.pth"
    torch.save(theirs.state_dict(), path)
    image = torch.randn(1, 3, 224, 224)
    conv5 = theirs.features[:-1](image)
    fc7 = theirs.classifier[:6](theirs.features(image).flatten(1))
    del theirs

    ours = poisoned(lambda: Detector(VGG(depth), head(), nested))
    with caplog.at_level(logging.INFO, "ion_d2"):
        assert IONCheckpointer(ours).load(str(path)) == {}
    path.unlink()  # half a gigabyte
    actual = ours.vgg[0](image)["conv5"]
    assert_equal_to_scale(actual, conv5)
    pooled = F.max_pool2d(actual, 2)
    assert_equal_to_scale(ours.roi_heads.box_head(pooled), fc7)
    convs = {16: 26, 11: 16}[depth]
    assert f"VGG{depth} in {path}: {convs} tensors go to the backbone, 4 to fc6" in caplog.text


@pytest.mark.parametrize("depth", [11, 13, 16, 19])
@torch.no_grad()
def test_every_block_equals_torchvision(depth, tmp_path):
    torch.manual_seed(depth)
    theirs = published(depth)
    torch.save(theirs.state_dict(), tmp_path / "vgg.pth")
    ours = poisoned(lambda: Detector(VGG(depth, out_features=ALL)))
    IONCheckpointer(ours).load(str(tmp_path / "vgg.pth"))
    x = torch.randn(1, 3, 41, 35)
    features = ours.vgg[0](x)
    block = 0
    for layer in theirs.features:
        if isinstance(layer, nn.MaxPool2d):
            assert_equal_to_scale(features[ALL[block]], x)
            block += 1
        x = layer(x)
    assert block == 5


@pytest.mark.parametrize(("norm", "freeze_at"), [("BN", 0), ("BN", 2), ("BRN", 0), ("FrozenBN", 0)])
@torch.no_grad()
def test_batch_norm_weights_equal_torchvision(norm, freeze_at, tmp_path):
    torch.manual_seed(0)
    theirs = published(11, batch_norm=True)
    torch.save(theirs.state_dict(), tmp_path / "vgg.pth")
    ours = poisoned(lambda: Detector(VGG(11, norm=norm, freeze_at=freeze_at)))
    IONCheckpointer(ours).load(str(tmp_path / "vgg.pth"))
    image = torch.randn(2, 3, 64, 64)
    assert_equal_to_scale(ours.vgg[0](image)["conv5"], theirs.features[:-1](image))


@torch.no_grad()
def test_a_file_saved_under_data_parallel_and_a_shallow_model(tmp_path):
    torch.manual_seed(0)
    theirs = published(13)
    state = {f"module.{key}": value for key, value in theirs.state_dict().items()}
    torch.save({"model": state, "epoch": 3}, tmp_path / "vgg.pth")
    ours = poisoned(lambda: Detector(VGG(13, out_features=["conv2"])))
    assert IONCheckpointer(ours).load(str(tmp_path / "vgg.pth")) == {"epoch": 3}
    image = torch.randn(1, 3, 16, 16)
    assert_equal_to_scale(ours.vgg[0](image)["conv2"], theirs.features[:9](image))


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("depth", [11, 13, 16, 19])
def test_recognises_every_published_layout(depth, batch_norm):
    assert recognise(fake_state(depth, batch_norm)) == VGGLayout(depth, batch_norm)


@pytest.mark.parametrize("name", ["alexnet", "squeezenet1_1", "mobilenet_v2", "resnet18"])
def test_other_networks_are_not_recognised(name):
    with torch.device("meta"):
        state = getattr(torchvision.models, name)(weights=None).state_dict()
    assert recognise(state) is None


def test_one_missing_layer_is_not_recognised():
    state = fake_state(16)
    del state["features.28.weight"]
    assert recognise(state) is None
    state = fake_state(16, batch_norm=True)
    del state["features.1.running_mean"]
    assert recognise(state) is None
    assert recognise({}) is None


@pytest.mark.parametrize(
    ("vgg", "file", "message"),
    [
        ({"depth": 16}, (11, False), "holds torchvision's VGG11, but the model is a VGG16"),
        ({"depth": 11}, (16, False), "holds torchvision's VGG16, but the model is a VGG11"),
        ({"norm": ""}, (16, True), 'VGG16 with batch norm.* has no normalisation.*NORM "BN"'),
        ({"norm": "GN"}, (16, True), "VGG16 with batch norm.* has GroupNorm"),
        ({"norm": "GN"}, (16, False), 'has GroupNorm; these weights need MODEL.VGG.NORM ""'),
        ({"norm": "BN", "freeze_at": 5}, (16, False), "has FrozenBatchNorm2d"),
        (
            {"width_multiplier": 0.25},
            (16, False),
            r"backbone.conv1_1.weight has shape \(64, 3, 3, 3\) in MODEL.WEIGHTS a.pth but \(16,",
        ),
        ({"in_channels": 1}, (16, False), r"conv1_1.weight .* \(64, 1, 3, 3\) in the model"),
    ],
)
def test_a_vgg_of_another_kind_is_refused(vgg, file, message):
    state = fake_state(*file)
    with torch.device("meta"):
        model = Detector(VGG(**vgg))
    with pytest.raises(IONError, match=message):
        map_vgg_weights(state, recognise(state), model, "a.pth")


def test_a_model_without_vgg_is_refused():
    state = fake_state(16)
    with pytest.raises(IONError, match="a.pth holds torchvision's VGG16, but the model has no VGG"):
        map_vgg_weights(state, recognise(state), nn.Conv2d(3, 3, 3), "a.pth")


@pytest.mark.parametrize("head", [(256 * 49, 4096), (512 * 49, 256)])
def test_unfit_fc_layers_are_left_out_with_one_warning(head, caplog):
    with torch.device("meta"):
        model = Detector(VGG(16), Head(*head))
    state = fake_state(16)
    mapped = map_vgg_weights(state, recognise(state), model, "a.pth")
    assert set(mapped) == {f"backbone.{key}" for key in VGG(16, 0.125).state_dict()}
    assert len(caplog.records) == 1
    assert f"fc6.weight (4096, 25088) against {head[::-1]}" in caplog.text


def test_a_head_without_fc7_or_without_fc_layers(caplog):
    state = fake_state(16)
    with torch.device("meta"):
        model = Detector(VGG(16), Head())
    del model.roi_heads.box_head.fc7
    mapped = map_vgg_weights(state, recognise(state), model, "a.pth")
    assert not any("box_head" in key for key in mapped)
    assert "fc7.weight (4096, 4096) against none" in caplog.text
    caplog.clear()
    with torch.device("meta"):
        model = Detector(VGG(16))
    assert len(map_vgg_weights(state, recognise(state), model, "a.pth")) == 26
    assert caplog.text == ""


def test_fc_layers_of_nan_are_left_out(caplog):
    state = fake_state(16)
    for key in state:
        if key.startswith("classifier"):
            state[key] = torch.full((), float("nan")).expand(state[key].shape)
    with torch.device("meta"):
        model = Detector(VGG(16), Head())
    mapped = map_vgg_weights(state, recognise(state), model, "a.pth")
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
    map_vgg_weights(state, recognise(state), model, "a.pth")
    if warned is None:
        assert caplog.text == ""
    else:
        assert len(caplog.records) == 1
        assert "INPUT.FORMAT RGB" in caplog.text and f"the model's {warned} is" in caplog.text
