"""The fast pooling is torchvision's, bit for bit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pooled_rois import random_rois
from torchvision.ops import roi_pool

from ion_d2.layers.roi_max_pool import ROIMaxPool, bin_windows


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    bins=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    stride=st.sampled_from([1, 2, 3, 4, 8, 16]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_equals_torchvision(seed, size, bins, stride, dtype):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 3, *size, generator=generator).to(dtype)
    rois = random_rois(12, seed, extent=stride * max(size)).to(dtype)
    with torch.no_grad():
        expected = roi_pool(x, rois, bins, 1 / stride)
        assert torch.equal(ROIMaxPool(bins, 1 / stride)(x, rois), expected)


@pytest.mark.parametrize("count", [3, 300])
def test_a_large_map_pools_in_slices_of_channels(count):
    """Few ROIs read small windows, many have tables of larger ones; 40 channels are 16, 16, 8."""
    x = torch.randn(1, 40, 150, 140)
    rois = random_rois(count, 0, images=1, extent=600)
    with torch.no_grad():
        pooled = ROIMaxPool((7, 7), 0.25)(x, rois)
    assert torch.equal(pooled, roi_pool(x, rois, (7, 7), 0.25))


@pytest.mark.parametrize("extent", [80, 400])
def test_gradients_are_torchvisions(extent):
    """Also of ROIs that lie outside of the map, 20 cells of 4 pixels, in part or as a whole."""
    # Whole numbers, so that many cells of a bin are its maximum.
    x = torch.randint(-3, 3, (2, 40, 20, 20)).double().requires_grad_()
    rois = random_rois(9, 0, extent=extent).double()
    weight = torch.randn(9, 40, 7, 7).double()
    gradients = []
    for pool in (ROIMaxPool((7, 7), 0.25), lambda x, r: roi_pool(x, r, (7, 7), 0.25)):
        gradients += torch.autograd.grad((pool(x, rois) * weight).sum(), x)
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)
    assert gradients[0].any()


def test_bins_of_the_same_cells_share_a_window():
    """A ROI of 2 x 2 cells has 3 different spans of cells a side: the first, both, the last."""
    rois = torch.tensor([[0.0, 4, 4, 5, 5], [1.0, 4, 4, 5, 5], [0.0, 4, 4, 5, 5]])
    windows, index = bin_windows(torch.zeros(2, 1, 9, 9), rois, [7, 7], 1.0)
    assert len(windows) == 2 * 3 * 3 and index.shape == (3, 7, 7)
    assert torch.equal(index[0], index[2]) and not torch.isin(index[0], index[1]).any()
    assert windows[index[0, 0, 0]].tolist() == [0, 4, 5, 4, 5]
    assert windows[index[1, 3, 6]].tolist() == [1, 4, 6, 5, 6]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_features_of_16_bits_keep_exact_boxes(dtype):
    """As under autocast: a box at 1000 pixels has no exact bfloat16."""
    x = torch.randn(1, 3, 80, 80).to(dtype).requires_grad_()
    rois = torch.tensor([[0.0, 901.0, 905.0, 1003.0, 1007.0]])
    out = ROIMaxPool((7, 7), 1 / 16)(x, rois)
    assert out.dtype == dtype
    assert torch.equal(out.float(), roi_pool(x.detach().float(), rois, (7, 7), 1 / 16))
    out.sum().backward()
    assert x.grad.any()
    with torch.no_grad():
        without_gradient = ROIMaxPool((7, 7), 1 / 16)(x, rois)
    assert without_gradient.dtype == dtype and torch.equal(without_gradient, out)


@pytest.mark.parametrize("grad", [False, True])
def test_boxes_that_are_no_numbers_spoil_no_others(grad):
    """As a regression that diverged gives them."""
    x = torch.rand(2, 3, 20, 20).requires_grad_(grad)
    rois = random_rois(9, 0, extent=80)
    expected = ROIMaxPool((7, 7), 0.25)(x, rois)
    worse = torch.tensor([[1, float("nan"), 4, 9, 9], [0, 3, 4, float("inf"), 9.0]])
    found = ROIMaxPool((7, 7), 0.25)(x, torch.cat([worse, rois]))
    assert torch.equal(found[2:], expected) and not found[0].any()


def test_boxes_of_pictures_that_are_not_there_spoil_no_others():
    x, rois = torch.rand(2, 3, 20, 20), random_rois(9, 0, extent=80)
    absent = rois[:2].clone()
    absent[:, 0] = torch.tensor([-1.0, 2.0])
    found = ROIMaxPool((7, 7), 0.25)(x, torch.cat([absent, rois]))
    assert torch.equal(found[2:], roi_pool(x, rois, (7, 7), 0.25)) and not found[:2].any()


def test_the_input_is_left_as_it_was():
    x = torch.randn(1, 2, 9, 9)
    before = x.clone()
    with torch.no_grad():
        ROIMaxPool((3, 3), 1.0)(x, random_rois(5, 1, images=1, extent=9)).add_(1)
    assert torch.equal(x, before)


def test_a_trace_pools_any_number_of_rois_alike():
    pool = ROIMaxPool((7, 5), 0.25)
    with torch.no_grad():
        trace = torch.jit.trace(pool, (torch.randn(1, 2, 9, 9), random_rois(4, 0, images=1)))
        for count, images, size in ((11, 3, (20, 31)), (0, 1, (9, 9))):
            x, rois = torch.randn(images, 4, *size), random_rois(count, 1, images=images)
            assert torch.equal(trace(x, rois), roi_pool(x, rois, (7, 5), 0.25))
