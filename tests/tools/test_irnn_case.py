"""What the benchmark of the spatial IRNN checks: the exact gradient, and who is wrong."""

import importlib
from pathlib import Path

import pytest
import torch

from ion_d2.layers import spatial_irnn_reference

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def cases(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module("irnn_case")


class WrongGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad * 1.001


WRONG = {
    "states": lambda x, weight: spatial_irnn_reference(x) * 1.001,
    "gradient": lambda x, weight: WrongGradient.apply(spatial_irnn_reference(x)),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_back_end_of_ours_ends_the_run(cases, what):
    case = cases.Case("1x4x5x6", "identity", "cpu")
    sentence = f"ion_d2 new is wrong on .*identity: the {what} is off"
    with pytest.raises(SystemExit, match=sentence):
        cases.leave_out_wrong(case, {"ion_d2 new": WRONG[what]})


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_rival_is_left_out(cases, what, capsys):
    case = cases.Case("1x4x5x6", "identity", "cpu")
    found = {"rival": WRONG[what], "plain loop": spatial_irnn_reference}
    cases.leave_out_wrong(case, found)
    assert list(found) == ["plain loop"]
    assert f"rival is wrong on (1, 4, 5, 6), identity: the {what}" in capsys.readouterr().err


def test_a_wrong_gradient_of_the_weight_is_found(cases):
    def off(x, weight):
        return spatial_irnn_reference(x, WrongGradient.apply(weight))

    case = cases.Case("1x4x5x6", "diagonal", "cpu")
    (complaint,) = cases.wrong(case, {"rival": off}).values()
    assert "diagonal: the gradient of the weight is off" in complaint


def test_the_matrices_of_an_rnn_are_checked_in_our_order(cases):
    rivals = importlib.import_module("irnn_rivals")
    case = cases.Case("1x4x5x6", "full", "cpu")
    rnn = rivals.BidirectionalRNNs(4)
    rnn.load(case.weight)
    assert cases.wrong(case, {"nn.RNN": rnn}) == {}
    assert [t.shape for t in case.result(rnn)] == [(1, 16, 5, 6), (1, 4, 5, 6), (4, 4, 4)]
    rnn.load(case.weight.flip(0))
    assert "states" in cases.wrong(case, {"nn.RNN": rnn})["nn.RNN"]


@pytest.mark.parametrize("kind", ["identity", "diagonal", "full"])
def test_exact_gradient_is_that_of_the_definition(cases, kind):
    """Of float64 states no gate differs, so that autograd goes back through the same ones."""
    case = cases.Case("2x3x4x5", kind, "cpu")
    x = case.x.detach().double().requires_grad_()
    weight = None if case.weight is None else case.weight.detach().double().requires_grad_()
    leaves = [x] if weight is None else [x, weight]
    states = spatial_irnn_reference(x, weight)
    expected = torch.autograd.grad(states, leaves, case.grad.double())
    found = [t for t in cases.exact_gradient(states, weight, case.grad) if t is not None]
    assert len(found) == len(expected)
    for got, want in zip(found, expected):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_exact_gradient_follows_the_states_that_it_is_given(cases):
    states = torch.tensor([1.0, 0.0, 2.0]).expand(4, 3).reshape(1, 4, 1, 3)
    found, _ = cases.exact_gradient(states, None, torch.ones(1, 4, 1, 3))
    # Each direction: nothing through the middle; along the column every cell stands alone.
    assert found.flatten().tolist() == [4.0, 0.0, 4.0]
