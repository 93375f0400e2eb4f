"""The gradient that the Triton cases are compared with is that of the definition."""

import pytest
import torch
from irnn_cases import KINDS
from irnn_gradient import exact_gradient

from ion_d2.layers import spatial_irnn_reference


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_that_of_the_definition(kind):
    """Of float64 states no gate differs, so that autograd goes back through the same ones."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    weight = {
        "identity": lambda: None,
        "diagonal": lambda: torch.rand(4, 3, dtype=torch.float64, requires_grad=True),
        "full": lambda: torch.randn(4, 3, 3, dtype=torch.float64, requires_grad=True),
    }[kind]()
    states = spatial_irnn_reference(x, weight)
    grad = torch.randn_like(states)
    expected = torch.autograd.grad(states, [x] if weight is None else [x, weight], grad)
    found = [t for t in exact_gradient(states, weight, grad) if t is not None]
    assert len(found) == len(expected)
    for got, want in zip(found, expected):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_it_follows_the_states_that_it_is_given():
    states = torch.tensor([1.0, 0.0, 2.0]).expand(4, 3).reshape(1, 4, 1, 3)
    found, _ = exact_gradient(states, None, torch.ones(1, 4, 1, 3))
    # Each direction: nothing through the middle; along the column every cell stands alone.
    assert found.flatten().tolist() == [4.0, 0.0, 4.0]
