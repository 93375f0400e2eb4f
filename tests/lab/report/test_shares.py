"""Shares of the layers: contributions add up to the descriptor, and count as defined."""

from __future__ import annotations

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes
from torch import nn

from ion_d2.modeling import SkipPooler
from ion_lab.report.shares import find_skip_pooler, layer_contributions, layer_scales, layer_shares

SHAPES = [ShapeSpec(channels=5, stride=4), ShapeSpec(channels=7, stride=8)]
BOXES = [Boxes(torch.tensor([[2.0, 3, 30, 40], [10, 10, 60, 50], [0, 0, 5, 5]]))]


def make(norm="roi", shapes=SHAPES, **kwargs):
    torch.manual_seed(0)
    pooler = SkipPooler(shapes, norm=norm, scale_init=10.0, out_channels=6, output_size=3, **kwargs)
    if pooler.reduce is not None:
        nn.init.normal_(pooler.reduce.bias)
    if pooler.scale is not None:
        nn.init.uniform_(pooler.scale.factor, 1.0, 20.0)
    features = [torch.randn(1, s.channels, 64 // s.stride, 64 // s.stride) for s in shapes]
    return pooler.eval(), features


@pytest.mark.parametrize("norm", ["roi", "position", "none"])
def test_contributions_and_bias_add_up_to_the_descriptor(norm):
    pooler, features = make(norm)
    parts = layer_contributions(pooler, features, BOXES)
    assert [part.shape for part in parts] == [(3, 6, 3, 3)] * 2
    expected = pooler(features, BOXES) - pooler.reduce.bias[:, None, None]
    torch.testing.assert_close(sum(parts), expected)


def test_each_contribution_comes_from_its_layer_alone():
    pooler, features = make("none")
    without = layer_contributions(pooler, [features[0], 0 * features[1]], BOXES)
    torch.testing.assert_close(without[0], layer_contributions(pooler, features, BOXES)[0])
    assert not without[1].any()
    assert layer_shares(without).tolist() == [[1.0, 0.0]] * 3


def test_shares_are_norms_over_their_sum():
    first = torch.zeros(2, 1, 2, 2)
    first[0, 0, 0] = torch.tensor([3.0, 4.0])  # norm 5
    second = torch.full((2, 1, 2, 2), 0.0)
    second[0] = 7.5  # norm 15
    shares = layer_shares([first, second])
    assert shares.tolist() == [[0.25, 0.75], [0.5, 0.5]]
    assert layer_shares([first[:0], second[:0]]).shape == (0, 2)


def test_scales_are_split_by_layer():
    pooler, features = make()
    nn.init.constant_(pooler.scale.factor[5:], 3.0)
    scales = layer_scales(pooler, features)
    assert [len(scale) for scale in scales] == [5, 7]
    assert torch.equal(scales[0], pooler.scale.factor[:5]) and (scales[1] == 3).all()
    assert layer_scales(*make("none")) == []


def test_only_poolers_that_merge_are_found():
    pooler, _ = make()
    assert find_skip_pooler(nn.Sequential(nn.ReLU(), pooler)) is pooler
    alone, _ = make("none", [ShapeSpec(channels=6, stride=4)])
    assert find_skip_pooler(alone) is None and find_skip_pooler(nn.ReLU()) is None
