"""A sparse product: torchvision's results and gradients, up to rounding."""

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
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(grad, expected_grad, rtol=0, atol=1e-11)


@pytest.mark.parametrize("aligned", [True, False])
def test_gradient_is_the_numerical_one(aligned):
    x = torch.randn(2, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    rois = random_rois(5, 3, extent=24).double()
    assert torch.autograd.gradcheck(
        lambda x: roi_align(x, rois, (3, 2), 0.25, 2, aligned), x, fast_mode=False
    )


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


@pytest.mark.parametrize("samples", [0, 2])
def test_corners_that_are_not_finite_count_as_0(samples):
    x = torch.randn(1, 3, 8, 8)
    wrong = torch.tensor([[0, 4, float("nan"), 20, 24], [0, float("-inf"), 2, float("inf"), 9]])
    out, grad = gradient(roi_align, x, wrong, (2, 2), 0.25, samples, True)
    expected = gradient(roi_align, x, wrong.nan_to_num(0, 0, 0), (2, 2), 0.25, samples, True)
    torch.testing.assert_close((out, grad), expected)
    assert out.isfinite().all()


def test_many_entries_are_held_in_portions(monkeypatch):
    x = torch.randn(2, 5, 30, 20, dtype=torch.float64)
    arguments = (x, random_rois(40, 7, extent=120).double(), (3, 2), 0.25, 0, True)
    whole = gradient(roi_align, *arguments)
    monkeypatch.setattr("ion_d2.layers.roi_align._ENTRIES", 100)
    torch.testing.assert_close(gradient(roi_align, *arguments), whole)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_does_not_move_the_boxes_of_torchvisions_operator(dtype):
    """A trace stands for a GPU: both keep the operator, which wants boxes of the features' type."""
    x = torch.randn(1, 1, 1, 700, generator=torch.Generator().manual_seed(0)).to(dtype)
    rois = torch.tensor([[0, 1203.3, 0, 1206, 1]])
    layer = ROIAlign((1, 3), 0.5, 1, True)
    traced = torch.jit.trace(layer, (x, rois))(x, rois)
    assert traced.dtype == dtype
    torch.testing.assert_close(traced, layer(x, rois))
    moved = layer(x, rois.to(dtype).float())
    assert (traced - moved).abs().max() > 0.05


def test_a_trace_keeps_the_operator():
    x, rois = (
        torch.randn(1, 3, 8, 8),
        random_rois(4, 1, images=1, extent=32),
    )
    traced = torch.jit.trace(ROIAlign((2, 2), 0.25, 0, True), (x, rois))
    assert "torchvision::roi_align" in str(traced.inlined_graph)
    torch.testing.assert_close(traced(x, rois), roi_align(x, rois, (2, 2), 0.25, 0, True))
