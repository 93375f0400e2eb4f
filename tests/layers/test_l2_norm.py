"""L2 normalization of pooled features against plain NumPy."""

import numpy as np
import pytest
import torch

from ion_d2.layers import l2_normalize
from ion_d2.layers.l2_norm import mean_l2_norm


@pytest.mark.parametrize(("norm", "axes"), [("roi", (1, 2, 3)), ("position", (1,))])
def test_equals_numpy(norm, axes):
    x = torch.randn(3, 4, 2, 5, dtype=torch.float64)
    scale = torch.rand(4, dtype=torch.float64)
    lengths = np.sqrt((x.numpy() ** 2).sum(axis=axes, keepdims=True))
    expected = x.numpy() / lengths
    np.testing.assert_allclose(l2_normalize(x, norm), expected)
    np.testing.assert_allclose(
        l2_normalize(x, norm, scale), expected * scale.numpy()[:, None, None]
    )
    assert mean_l2_norm(x, norm).item() == pytest.approx(lengths.mean())
    leaves = (x.requires_grad_(), scale.requires_grad_())
    assert torch.autograd.gradcheck(lambda x, scale: l2_normalize(x, norm, scale), leaves)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="'none'"):
        l2_normalize(torch.zeros(1, 2, 1, 1), "none", torch.ones(2))
    with pytest.raises(ValueError, match="'l1'"):
        l2_normalize(torch.zeros(1, 1, 1, 1), "l1")


def test_none_returns_the_input():
    x = torch.randn(2, 3, 4, 4)
    assert l2_normalize(x, "none") is x


def test_zero_and_empty_features_stay_finite():
    x = torch.zeros(2, 3, 2, 2, requires_grad=True)
    y = l2_normalize(x, "roi")
    y.sum().backward()
    assert (y == 0).all() and torch.isfinite(x.grad).all()
    assert l2_normalize(torch.zeros(0, 3, 2, 2), "roi").shape == (0, 3, 2, 2)


def test_half_precision_does_not_overflow():
    # The sum of squares, 4e9, is beyond float16.
    x = torch.full((1, 64, 4, 4), 2000.0, dtype=torch.float16)
    expected = 1 / np.sqrt(64 * 16)
    assert l2_normalize(x, "roi")[0, 0, 0, 0].item() == pytest.approx(expected, rel=1e-3)


def test_shapes_alone_are_enough():
    assert l2_normalize(torch.ones(2, 3, 7, 7, device="meta"), "roi").shape == (2, 3, 7, 7)
