"""Which back-end serves a call, and what it says when it cannot."""

import pytest
import torch

from ion_d2.layers import spatial_irnn, spatial_irnn_reference
from ion_d2.layers.irnn import BACKENDS, ENVIRONMENT_VARIABLE, unavailable_backends
from ion_d2.layers.irnn.backends import choose_backend


@pytest.fixture(autouse=True)
def _no_choice_from_outside(monkeypatch):
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)


def test_plain_pytorch_serves_everything_on_a_cpu():
    for kind in ("identity", "diagonal", "full"):
        for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
            assert "torch" not in unavailable_backends("cpu", dtype, kind)
    assert choose_backend(torch.zeros(1, 1, 1, 1), None, None) == "torch"


def test_every_backend_is_either_usable_or_says_why_not():
    reasons = unavailable_backends("cpu")
    assert set(reasons) <= set(BACKENDS)
    assert all(reason.endswith(".") and len(reason) > 20 for reason in reasons.values())


@pytest.mark.parametrize("by", ["argument", "environment"])
def test_a_backend_can_be_forced(by, monkeypatch):
    used = []
    forward = BACKENDS["torch"].forward
    monkeypatch.setattr(
        BACKENDS["torch"], "forward", lambda *args: used.append("torch") or forward(*args)
    )
    x = torch.randn(1, 2, 3, 4)
    if by == "environment":
        monkeypatch.setenv(ENVIRONMENT_VARIABLE, "torch")
    got = spatial_irnn(x, backend="torch" if by == "argument" else None)
    torch.testing.assert_close(got, spatial_irnn_reference(x))
    assert used == ["torch"]


def test_the_argument_overrules_the_environment(monkeypatch):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "nonsense")
    assert choose_backend(torch.zeros(1, 1, 1, 1), None, "torch") == "torch"


@pytest.mark.parametrize("by", ["argument", "environment"])
def test_unknown_backend_is_named_with_those_that_exist(by, monkeypatch):
    source = "backend"
    if by == "environment":
        monkeypatch.setenv(ENVIRONMENT_VARIABLE, "cupy")
        source = ENVIRONMENT_VARIABLE
    with pytest.raises(ValueError, match=rf"{source} must be one of .*'torch'.*'cupy'"):
        spatial_irnn(torch.zeros(1, 1, 1, 1), backend="cupy" if by == "argument" else None)


def test_a_forced_backend_that_cannot_serve_says_why(monkeypatch):
    monkeypatch.setattr(BACKENDS["torch"], "unavailable", lambda *_: "It is out of order.")
    with pytest.raises(RuntimeError, match="backend is 'torch'.*out of order"):
        spatial_irnn(torch.zeros(1, 1, 1, 1), backend="torch")
