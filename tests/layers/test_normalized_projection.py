"""One step of norm, scale and 1x1 convolution against the three steps of the paper."""

import pytest
import torch
import torch.nn.functional as F

from ion_d2.layers import l2_norm
from ion_d2.layers.l2_norm import normalized_projection


def literal(x, weight, norm, scale):
    if norm != "none":
        square = x.pow(2).sum((1, 2, 3) if norm == "roi" else 1, keepdim=True)
        x = x / square.clamp(min=1e-8).sqrt() * scale[:, None, None]
    return F.conv2d(x, weight[:, :, None, None])


def inputs(dtype, rois=5):
    torch.manual_seed(0)
    x = torch.randn(rois, 6, 3, 4, dtype=dtype)
    if rois > 2:
        x[1] = 0  # a ROI of dead cells
        x[2] *= 1e-6  # and one below the least norm
    weight, scale = torch.randn(7, 6, dtype=dtype), torch.rand(6, dtype=dtype) + 3
    return [each.requires_grad_() for each in (x, weight, scale)]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("norm", ["roi", "position", "none"])
@pytest.mark.parametrize("rois", [5, 0])
def test_equals_the_three_steps_with_gradients(norm, channels_last, rois):
    x, weight, scale = inputs(torch.float32, rois)
    if channels_last:
        x = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    given = (x, weight) if norm == "none" else (x, weight, scale)
    results = []
    for project in (normalized_projection, literal):
        y = project(x, weight, norm, None if norm == "none" else scale)
        cotangent = torch.linspace(-1, 1, y.numel()).view_as(y)
        results.append([y, *torch.autograd.grad(y, given, cotangent)])
    for got, expected in zip(*results):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(
            normalized_projection(x, weight, norm, None if norm == "none" else scale), results[0][0]
        )


@pytest.mark.parametrize("norm", ["roi", "position"])
def test_what_needs_no_gradient_gets_none(norm):
    x, weight, scale = inputs(torch.float64)
    cotangent = torch.randn(5, 7, 3, 4, dtype=torch.float64)
    wanted = []
    for given in (x, x.detach()):
        y = normalized_projection(given, weight, norm, scale)
        wanted.append(torch.autograd.grad(y, (weight, scale), cotangent))
    for with_it, without in zip(*wanted):
        assert torch.equal(with_it, without)


def test_a_norm_that_does_not_commute_is_divided_by_first(monkeypatch):
    """One of each channel over its cells, as somebody may add it."""
    monkeypatch.setattr(l2_norm, "norm_dims", lambda norm: (2, 3))
    x, weight, scale = inputs(torch.float64)
    expected = F.conv2d(l2_norm.l2_normalize(x, "channel", scale), weight[:, :, None, None])
    torch.testing.assert_close(normalized_projection(x, weight, "channel", scale), expected)


@pytest.mark.parametrize("norm", ["roi", "position"])
def test_gradients_are_those_of_finite_differences(norm):
    x, weight, scale = inputs(torch.float64)
    x = x.detach()[3:].requires_grad_()
    torch.autograd.gradcheck(
        lambda *given: normalized_projection(*given[:2], norm, given[2]), (x, weight, scale)
    )


def test_sixteen_bits_stay_in_range():
    """An unnormalized product of these would be beyond float16."""
    x = torch.full((1, 64, 7, 7), 6e4, dtype=torch.float16)
    weight = torch.ones(2, 64, dtype=torch.float16)
    scale = torch.full((64,), 1000.0)
    y = normalized_projection(x, weight, "roi", scale)
    # 64 channels, each at 1000 / sqrt(64 * 49).
    assert y.dtype == torch.float16 and torch.allclose(
        y.float(), torch.tensor(64 * 1000 / 56), rtol=2e-3
    )
