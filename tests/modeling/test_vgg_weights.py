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
from vgg_models import Detector, Head, fake_state, poisoned, published, randomize

from ion_d2.engine.checkpoint import IONCheckpointer
from ion_d2.modeling.backbone.vgg import VGG
from ion_d2.modeling.backbone.vgg_weights import VGGLayout, recognize

pytestmark = pytest.mark.slow

ALL = ("conv1", "conv2", "conv3", "conv4", "conv5")


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
    randomize(layers)
    return layers.eval()


def d2_head():
    shape = ShapeSpec(channels=512, height=7, width=7)
    return FastRCNNConvFCHead(shape, conv_dims=[], fc_dims=[4096, 4096])


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
    assert f"VGG{depth}: {convs} tensors go to the backbone, 4 to fc6" in caplog.text


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
def test_recognizes_every_published_layout(depth, batch_norm):
    assert recognize(fake_state(depth, batch_norm)) == VGGLayout(depth, batch_norm)


@pytest.mark.parametrize("name", ["alexnet", "squeezenet1_1", "mobilenet_v2", "resnet18"])
def test_other_networks_are_not_recognized(name):
    with torch.device("meta"):
        state = getattr(torchvision.models, name)(weights=None).state_dict()
    assert recognize(state) is None


def test_one_missing_layer_is_not_recognized():
    for batch_norm, key in ((False, "features.28.weight"), (True, "features.1.running_mean")):
        state = fake_state(16, batch_norm)
        del state[key]
        assert recognize(state) is None
    assert recognize({}) is None
