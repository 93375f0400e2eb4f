"""Theoretical receptive fields against the reach of gradients in networks of positive numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from ion_d2.modeling.backbone import VGG
from ion_d2.modeling.context import IRNN, RNN, Branches, Chain, Conv, GlobalAverage
from ion_lab.report.reach import context_reach, pixels_of, swept_cells, vgg_field
from ion_lab.scenes.geometry import ReceptiveField

HEIGHT, WIDTH, CELL = 7, 9, (2, 3)


def positive(block):
    """Weights above 0 and inputs above 0 keep every ReLU open: gradients reach all they can."""
    for name, parameter in block.named_parameters():
        nn.init.constant_(parameter, 0.0 if "bias" in name else 0.1)
    return block.eval()


def irnn(directions, **kwargs):
    return IRNN(2, hidden_dim=3, out_dim=2, num_stacks=len(directions), directions=directions,
                **kwargs)  # fmt: skip


BLOCKS = {
    "two stacks": lambda: irnn([["right", "left", "down", "up"]] * 2),
    "one stack": lambda: irnn([["right", "left", "down", "up"]]),
    "one direction": lambda: irnn([["down"]]),
    "rows, then columns": lambda: irnn([["right"], ["up"]]),
    "conv": lambda: Conv(2, hidden_dim=3, out_dim=2, num_stacks=2, kernel_size=3),
    "average": lambda: GlobalAverage(2),
    "gru": lambda: RNN(2, cell="gru", hidden_dim=3, out_dim=2, num_stacks=1,
                       directions=[["left", "up"]]),
    "chain": lambda: Chain([Conv(2, hidden_dim=2, out_dim=2, num_stacks=1, kernel_size=5),
                            irnn([["left"]])]),
    "branches": lambda: Branches({"IRNN": irnn([["right"]]), "GlobalAverage": GlobalAverage(2)}),
}  # fmt: skip


@pytest.mark.parametrize("name", BLOCKS)
def test_context_reads_the_cells_that_gradients_reach(name):
    block = positive(BLOCKS[name]())
    x = torch.rand(1, 2, HEIGHT, WIDTH).add(0.1).requires_grad_()
    output = block(x)
    output = output["context"] if isinstance(output, dict) else output
    output[0, :, CELL[0], CELL[1]].sum().backward()
    cells = np.zeros((HEIGHT, WIDTH), dtype=bool)
    cells[CELL] = True
    np.testing.assert_array_equal(context_reach(block, cells), x.grad[0].sum(0).numpy() != 0)


def test_blocks_of_other_kinds_are_not_judged():
    cells = np.ones((2, 2), dtype=bool)
    unknown = nn.Identity()
    unknown.out_channels = 2
    assert context_reach(unknown, cells) is None
    assert context_reach(Chain([unknown, Conv(2, out_dim=2)]), cells) is None


def test_sweeps_of_several_cells_join():
    cells = np.zeros((3, 4), dtype=bool)
    cells[0, 2] = cells[2, 1] = True
    expected = np.array([[1, 1, 1, 0], [0, 0, 0, 0], [1, 1, 0, 0]], dtype=bool)
    np.testing.assert_array_equal(swept_cells(cells, ["right"]), expected)
    np.testing.assert_array_equal(swept_cells(cells, []), np.zeros_like(cells))


@pytest.mark.parametrize("depth", [11, 16])
@pytest.mark.parametrize("feature", ["conv1", "conv3", "conv5"])
def test_field_of_a_vgg_bounds_its_gradients(depth, feature):
    vgg = positive(VGG(depth, width_multiplier=0.125, out_features=(feature,)))
    field, stride = vgg_field(vgg, feature), vgg.output_shape()[feature].stride
    size, touched = (256, 240), np.zeros((256, 240), dtype=bool)
    row, column = 112 // stride, 128 // stride
    for seed in range(4):  # max pooling hides pixels; none of several images hides all of a border
        x = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(seed)).requires_grad_()
        vgg(x)[feature][0, :, row, column].sum().backward()
        touched |= x.grad[0].sum(0).numpy() != 0
    cells = np.zeros((size[0] // stride, size[1] // stride), dtype=bool)
    cells[row, column] = True
    possible = pixels_of(cells, field, size)
    assert not (touched & ~possible).any()
    if feature == "conv1":  # no pooling below: exact
        np.testing.assert_array_equal(touched, possible)
    assert touched.sum() > 0.5 * possible.sum()


def test_other_backbones_have_no_known_field():
    assert vgg_field(nn.Identity(), "res4") is None


def test_pixels_are_the_union_of_the_cells_fields():
    field = ReceptiveField(size=5, stride=3, start=-2)
    cells = np.random.default_rng(0).random((4, 5)) < 0.2
    expected = np.zeros((11, 16), dtype=bool)
    for row, column in np.argwhere(cells):
        (y0, y1), (x0, x1) = field.span(row), field.span(column)
        expected[max(y0, 0) : y1, max(x0, 0) : x1] = True
    np.testing.assert_array_equal(pixels_of(cells, field, (11, 16)), expected)
