"""The context blocks compute what loops over cells, written out by hand, compute."""

import pytest
import torch
from torch import nn

from ion_d2.modeling.context import IRNN, Conv, GlobalAverage, SpatialIRNN, SpatialRNN


def travel(direction, height, width):
    """Lines of cells in the order of travel, by hand."""
    rows = [[(i, j) for j in range(width)] for i in range(height)]
    columns = [[(i, j) for i in range(height)] for j in range(width)]
    lines = rows if direction in ("right", "left") else columns
    return [line[::-1] if direction in ("left", "up") else line for line in lines]


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("transition", ["full", "diagonal", "identity"])
@torch.no_grad()
def test_irnn_with_first_step_bias_equals_a_loop_over_cells(shared, transition):
    torch.manual_seed(0)
    names = ("down", "left", "right", "up")
    layer = SpatialIRNN(
        2, transition, directions=names, shared_input=shared, first_step_bias=True
    ).double()
    for parameter in layer.parameters():
        parameter.normal_()
    x = torch.randn(1, 2 if shared else 8, 3, 4, dtype=torch.float64)
    result = layer(x)
    for d, name in enumerate(names):
        source = x[0] if shared else x[0, 2 * d : 2 * d + 2]
        weight = torch.eye(2).double() if transition == "identity" else layer.weight[d]
        weight = torch.diag(weight) if transition == "diagonal" else weight
        for line in travel(name, 3, 4):
            state = torch.zeros(2, dtype=torch.float64)
            for step, (i, j) in enumerate(line):
                state = weight @ state + source[:, i, j]
                state = (state + layer.first_step_bias[d] * (step == 0)).clamp(min=0)
                torch.testing.assert_close(result[0, 2 * d : 2 * d + 2, i, j], state)


@torch.no_grad()
def test_separate_inputs_that_are_equal_give_the_shared_result():
    torch.manual_seed(1)
    shared, separate = IRNN(3, hidden_dim=4), IRNN(3, hidden_dim=4, shared_input=False)
    state = shared.state_dict()
    for name in list(state):
        if name.startswith("convs."):
            state[name] = state[name].repeat(4, *[1] * (state[name].dim() - 1))
    separate.load_state_dict(state)
    x = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(separate.eval()(x), shared.eval()(x))


def test_pass_through_with_separate_inputs_and_few_directions():
    directions = [["left", "right"], ["up"]]
    pair = [
        IRNN(3, hidden_dim=3, out_dim=3, init="pass_through", directions=directions, shared_input=s)
        for s in (True, False)
    ]
    x = torch.rand(1, 3, 4, 5)
    expected = torch.flip(torch.flip(x, [3]).cumsum(3), [3]) + x.cumsum(3)
    expected = torch.flip(torch.flip(expected / 2, [2]).cumsum(2), [2])
    for block in pair:
        torch.testing.assert_close(block.eval()(x), expected)


STEPPERS = {"tanh": nn.RNNCell, "gru": nn.GRUCell, "lstm": nn.LSTMCell}


@pytest.mark.parametrize("cell", STEPPERS)
@torch.no_grad()
def test_torch_cells_equal_a_loop_over_cells(cell):
    torch.manual_seed(2)
    names = ("up", "left", "right", "down")
    layer = SpatialRNN(3, 2, cell, names).double()
    x = torch.randn(1, 3, 3, 4, dtype=torch.float64)
    result = layer(x)
    for d, name in enumerate(names):
        stepper = STEPPERS[cell](3, 2).double()
        stepper.load_state_dict(
            {k.replace("_l0", ""): v for k, v in layer.cells[d].state_dict().items()}
        )
        for line in travel(name, 3, 4):
            state = None
            for i, j in line:
                state = stepper(x[:, :, i, j], state)
                hidden = state[0] if cell == "lstm" else state
                torch.testing.assert_close(result[0, 2 * d : 2 * d + 2, i, j], hidden[0])


@torch.no_grad()
def test_torch_cells_run_in_float32_under_autocast():
    layer = SpatialRNN(3, 2, "gru")
    x = torch.randn(1, 3, 3, 4).bfloat16()
    expected = layer(x.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(layer(x.float()), expected)
        assert torch.equal(layer(x), expected.bfloat16())


@pytest.mark.parametrize(("kernel", "reach"), [(3, 2), (5, 4)])
def test_two_convolutions_reach_as_far_as_in_figure_5(kernel, reach):
    block = Conv(1, hidden_dim=4, out_dim=2, kernel_size=kernel)
    for parameter in block.parameters():
        parameter.data.abs_()
    x = torch.ones(1, 1, 13, 13, requires_grad=True)
    (gradient,) = torch.autograd.grad(block(x)[0, :, 6, 6].sum(), x)
    reached = torch.zeros(13, 13, dtype=torch.bool)
    reached[6 - reach : 7 + reach, 6 - reach : 7 + reach] = True
    assert torch.equal(gradient[0, 0] > 0, reached)


def test_global_average_is_the_mean_at_every_cell():
    x = torch.tensor([[[[1.0, 2.0, 50.0], [3.0, 6.0, 50.0]]]])
    assert GlobalAverage(1)(x, torch.tensor([[2, 2]])).tolist() == [[[[3, 3, 0], [3, 3, 0]]]]
    half = torch.full((1, 1, 100, 100), 60.0, dtype=torch.float16)  # the sum exceeds float16
    assert torch.equal(GlobalAverage(1)(half), half)
