"""The fast pooling is torchvision's, bit for bit."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import roi_pool

from ion_d2.layers.roi_max_pool import ROIMaxPool, roi_max_pool


def random_rois(count, seed, images=2, extent=120.0):
    """Boxes inside, across and outside the map, some turned inside out, some on half cells."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 4, generator=generator) * extent * 1.6 - extent * 0.3
    corners[::3] = (corners[::3] / 2).round() * 2
    inside_out = torch.rand(count, 1, generator=generator) < 0.1
    low, high = (
        torch.minimum(corners[:, :2], corners[:, 2:]),
        torch.maximum(corners[:, :2], corners[:, 2:]),
    )
    boxes = torch.where(inside_out, torch.cat([high, low], 1), torch.cat([low, high], 1))
    image = torch.randint(0, images, (count, 1), generator=generator)
    return torch.cat([image.float(), boxes], dim=1)


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
        assert torch.equal(roi_max_pool(x, rois, bins, 1 / stride), expected)


def test_nothing_to_pool():
    x = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        assert roi_max_pool(x, torch.zeros(0, 5), (7, 7), 0.25).shape == (0, 3, 7, 7)


def test_gradients_are_torchvisions():
    x = torch.randn(2, 3, 20, 20, requires_grad=True)
    rois = random_rois(9, 0, extent=80)
    weight = torch.randn(9, 3, 7, 7)
    gradients = []
    for pool in (ROIMaxPool((7, 7), 0.25), lambda x, r: roi_pool(x, r, (7, 7), 0.25)):
        x.grad = None
        (pool(x, rois) * weight).sum().backward()
        gradients.append(x.grad)
    assert torch.equal(*gradients) and gradients[0].any()


def test_the_input_is_left_as_it_was():
    x = torch.randn(1, 2, 9, 9)
    before = x.clone()
    with torch.no_grad():
        roi_max_pool(x, random_rois(5, 1, images=1, extent=9), (3, 3), 1.0).add_(1)
    assert torch.equal(x, before)
