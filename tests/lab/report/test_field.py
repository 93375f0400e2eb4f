"""Effective receptive fields against networks whose Jacobian is known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2.structures import ImageList
from scipy.signal import convolve2d
from torch import nn

from ion_lab.report.field import effective_fields, share_within
from ion_lab.report.fields_view import _same_size
from ion_lab.report.observe import Sample


class Features(nn.Module):
    """A backbone of one feature."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return {"deep": self.layers(x)}


def conv(weight, stride=1):
    weight = torch.as_tensor(weight, dtype=torch.float64)
    layer = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2:], stride=stride,
                      padding=weight.shape[2] // 2, bias=False)  # fmt: skip
    layer.weight = nn.Parameter(weight)
    return layer


def images(count=2, size=(20, 24), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(3, *size, generator=generator, dtype=torch.float64) for _ in range(count)]


def test_box_filters_have_the_field_of_their_convolution():
    first, second = np.random.default_rng(0).random((2, 3, 3))
    colors = np.array([0.5, 1.0, 2.0])
    network = Features(
        conv(colors[None, :, None, None] * first), conv(second[None, None]), nn.ReLU()
    )
    field = effective_fields(network, images(), {"deep": (9, 11)}, probes=1)["deep"]
    # A cross-correlation's gradient is the correlation of its kernels, with the center at the cell.
    expected = np.zeros((20, 24))
    expected[7:12, 9:14] = convolve2d(first, second)
    np.testing.assert_allclose(field, expected / np.linalg.norm(expected), atol=1e-12)


def test_strided_layers_and_borders():
    network = Features(conv(np.ones((1, 3, 3, 3)), stride=2), conv(np.ones((1, 1, 3, 3))))
    field = effective_fields(network, images(), {"deep": (0, 11)}, probes=1)["deep"]
    # Rows: cells 0 and 1 of stride 2, windows -1..1 and 1..3; columns: cells 10 and 11.
    rows, columns = np.zeros(20), np.zeros(24)
    rows[[0, 1, 2, 3]] = [1, 2, 1, 1]
    columns[[19, 20, 21, 22, 23]] = [1, 1, 2, 1, 1]
    expected = np.outer(rows, columns)
    np.testing.assert_allclose(field, expected / np.linalg.norm(expected), atol=1e-12)


def test_the_estimate_is_the_norm_of_the_jacobian():
    torch.manual_seed(0)
    network = Features(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 3, padding=1))
    network = network.double()
    (image,) = images(1, (9, 9))

    def cell(x):
        return network(x[None])["deep"][0, :, 4, 4]

    jacobian = torch.autograd.functional.jacobian(cell, image)  # [4, 3, 9, 9]
    expected = jacobian.square().sum(dim=(0, 1)).sqrt()
    expected = (expected / expected.norm()).numpy()
    field = effective_fields(network, [image], {"deep": (4, 4)}, probes=4000)["deep"]
    np.testing.assert_allclose(field, expected, atol=0.01)
    few = effective_fields(network, [image], {"deep": (4, 4)}, probes=1)["deep"]
    assert abs(few - expected).max() > 0.02  # the probes differ, the seed makes them repeatable
    again = effective_fields(network, [image], {"deep": (4, 4)}, probes=1)["deep"]
    np.testing.assert_array_equal(few, again)


def test_each_image_counts_alike():
    network = Features(conv(np.ones((1, 3, 1, 1))), Square())
    small, large = images(2)
    both = effective_fields(network, [small, 100 * large], {"deep": (3, 5)}, probes=1)["deep"]
    assert both[3, 5] == pytest.approx(1.0) and both.sum() == pytest.approx(1.0)


class Square(nn.Module):
    """Its derivative grows with the input."""

    def forward(self, x):
        return x.square()


def test_a_cell_that_never_moves_has_no_field():
    network = Features(conv(-np.ones((1, 3, 3, 3))), nn.ReLU())
    assert not effective_fields(network, images(), {"deep": (5, 5)})["deep"].any()


def test_shares_within_squares_by_counting():
    field = np.random.default_rng(1).random((13, 17))
    center = (6.0, 4.5)
    shares = share_within(field, center)
    for distance, share in enumerate(shares):
        total = 0.0
        for row, column in np.ndindex(field.shape):
            inside = max(abs(row + 0.5 - center[0]), abs(column + 0.5 - center[1])) <= distance
            total += field[row, column] * inside
        assert share == pytest.approx(total / field.sum())
    assert shares[0] == 0 and shares[-1] == pytest.approx(1.0) and len(shares) == 13
    assert not share_within(np.zeros((4, 4)), (2, 2)).any()


class PaddedTo32(nn.Module):
    """What a detector does to a picture first; its backbone takes multiples of 32 alone."""

    backbone = SimpleNamespace(size_divisibility=32)

    def preprocess_image(self, inputs):
        return ImageList.from_tensors([x["image"] for x in inputs], 32)


def test_no_padding_counts_as_picture():
    white = torch.full((3, 120, 181), 255.0)
    (image,) = _same_size(PaddedTo32(), [Sample({}, {"image": white}, None)])
    assert image.shape == (3, 128, 192) and image.min() > 254
