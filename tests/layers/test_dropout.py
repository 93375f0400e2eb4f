"""Dropout by uniform numbers on a CPU."""

import pytest
import torch

from ion_d2.layers.dropout import Dropout


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_entries_are_zero_or_larger_and_so_are_their_gradients(dtype):
    torch.manual_seed(0)
    x = torch.ones(1000, 100, dtype=dtype, requires_grad=True)
    y = Dropout(0.3)(x)
    y.backward(torch.full_like(y, 2.0))
    kept = y != 0
    # 6 standard deviations of the share of 100,000 draws.
    assert abs(kept.double().mean() - 0.7) < 6 * (0.3 * 0.7 / 1e5) ** 0.5
    assert torch.equal(y[kept], torch.full_like(y[kept], 1 / 0.7)) and y.dtype == dtype
    assert torch.equal(x.grad, 2 * y)


def test_nothing_is_dropped_in_evaluation_or_with_probability_0():
    x = torch.randn(100)
    assert torch.equal(Dropout(0.5).eval()(x), x) and torch.equal(Dropout(0.0)(x), x)
    assert not Dropout(1.0)(x).any()
