"""The running maximum, cell by cell."""

import pytest
import torch

from ion_d2.layers import DIRECTIONS
from ion_d2.modeling.context import IRNN
from ion_d2.modeling.context.spatial_irnn import running_max


def seen(direction, row, column, height, width):
    """The cells that a state has met, by the meaning of the directions."""
    return {
        "right": (slice(row, row + 1), slice(0, column + 1)),
        "left": (slice(row, row + 1), slice(column, width)),
        "down": (slice(0, row + 1), slice(column, column + 1)),
        "up": (slice(row, height), slice(column, column + 1)),
    }[direction]


def test_each_state_is_the_largest_of_the_cells_it_has_met():
    x = torch.randn(2, 3, 4, 5)
    states = running_max(x, DIRECTIONS).unflatten(1, (4, 3))
    for d, direction in enumerate(DIRECTIONS):
        for row in range(4):
            for column in range(5):
                rows, columns = seen(direction, row, column, 4, 5)
                expected = x[:, :, rows, columns].amax(dim=(2, 3))
                assert torch.equal(states[:, d, :, row, column], expected)


@pytest.mark.parametrize("sizes", [None, torch.tensor([[3, 4], [4, 2]])])
def test_gradients_are_finite_differences(sizes):
    torch.manual_seed(0)
    x = torch.randn(2, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: running_max(x, DIRECTIONS, sizes), (x,))


def test_two_stacks_carry_one_cell_to_every_other():
    x = torch.zeros(1, 2, 5, 6)
    x[0, 1, 0, 5] = 7.0
    settings = {"hidden_dim": 2, "out_dim": 2, "dropout": 0.0, "init": "rows_then_columns"}
    # Behind the first stack, the mean of "right" and "left": 3.5 in row 0 before the cell, 7 in it.
    context = IRNN(2, transition="max", **settings)(x)
    assert (context[0, 0] == 0).all()
    assert torch.equal(context[0, 1, 4], torch.tensor([1.75] * 5 + [3.5]))
