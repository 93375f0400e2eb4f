"""In threads: torchvision's results and gradients, bit for bit."""

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from pooled_rois import random_rois

from ion_d2.layers.roi_align import ROIAlign


def roi_align(x, rois, *arguments):
    return ROIAlign(*arguments)(x, rois)


def gradient(pool, x, rois, *arguments):
    x = x.clone().requires_grad_()
    out = pool(x, rois, *arguments)
    # Different weights, so that no two bins are exchanged unseen.
    (out * torch.arange(out.numel(), dtype=x.dtype).cos().view_as(out)).sum().backward()
    return out.detach(), x.grad


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    bins=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    stride=st.sampled_from([1, 2, 3, 4, 8, 16]),
    samples=st.integers(0, 3),
    aligned=st.booleans(),
)
def test_equals_torchvision(seed, size, bins, stride, samples, aligned):
    x = torch.randn(2, 40, *size, generator=torch.Generator().manual_seed(seed)).double()
    rois = random_rois(12, seed, extent=stride * max(size)).double()
    arguments = (x, rois, bins, 1 / stride, samples, aligned)
    out, grad = gradient(roi_align, *arguments)
    expected, expected_grad = gradient(torchvision.ops.roi_align, *arguments)
    assert torch.equal(out, expected)
    assert torch.equal(grad, expected_grad)


@pytest.mark.parametrize("aligned", [True, False])
def test_gradient_is_the_numerical_one(aligned):
    x = torch.randn(2, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    rois = random_rois(5, 3, extent=24).double()
    assert torch.autograd.gradcheck(
        lambda x: roi_align(x, rois, (3, 2), 0.25, 2, aligned), x, fast_mode=False
    )


def test_a_hand_computed_gradient():
    # One bin over the whole 2x2 map has its one sample in the middle: a quarter from each cell.
    x = torch.zeros(1, 1, 2, 2, requires_grad=True)
    roi_align(x, torch.tensor([[0.0, 0, 0, 2, 2]]), (1, 1), 1.0, 1, True).sum().backward()
    assert torch.equal(x.grad, torch.full((1, 1, 2, 2), 0.25))


def test_rois_of_another_type_are_taken():
    x, rois = torch.randn(2, 3, 9, 9), random_rois(5, 2, extent=36)
    out, grad = gradient(ROIAlign((2, 2), 0.25, 2, False), x.double(), rois)
    expected = gradient(torchvision.ops.roi_align, x.double(), rois.double(), (2, 2), 0.25, 2)
    torch.testing.assert_close((out, grad), expected)


def test_nothing_to_pool():
    x = torch.randn(1, 3, 8, 8, requires_grad=True)
    out = roi_align(x, torch.zeros(0, 5), (7, 7), 0.25, 1, True)
    assert out.shape == (0, 3, 7, 7)
    out.sum().backward()
    assert torch.equal(x.grad, torch.zeros_like(x))
