"""Features whose bins share windows are merged as if each bin had its own."""

import pytest
import torch
import torch.nn.functional as F

from ion_d2.layers import l2_normalize
from ion_d2.layers.merged_windows import MergedWindows
from ion_d2.layers.roi_max_pool import spread_windows


def features(least):
    """Two features of 5 ROIs; of the second, window 0 has dead cells, 1 is below the least norm."""
    torch.manual_seed(0)
    pooled = []
    for count, channels in ((4, 3), (9, 6)):
        windows = torch.randn(count, channels, dtype=torch.float64)
        pooled.append((windows, torch.randint(least, count, (5, 3, 4))))
    pooled[1][0][0], pooled[1][0][1] = 0, 1e-6
    if not least:
        pooled[1][1][1], pooled[1][1][2] = 0, 1  # ROIs of these alone
    weights = [torch.randn(7, 3, dtype=torch.float64), torch.randn(7, 6, dtype=torch.float64)]
    scale, bias = torch.rand(6, dtype=torch.float64) + 3, torch.randn(7, dtype=torch.float64)
    inputs = [pooled[0][0], pooled[1][0], *weights, scale, bias]
    return [index for _, index in pooled], [x.requires_grad_() for x in inputs]


def merge(indices, norm, first, second, first_weight, second_weight, scale, bias):
    merged = MergedWindows(norm)
    merged.add(first, indices[0], first_weight)
    merged.add(second, indices[1], second_weight, scale)
    return merged.merge(bias[:, None, None])


@pytest.mark.parametrize("norm", ["roi", "position"])
def test_equals_the_three_steps_with_gradients(norm):
    indices, inputs = features(0)
    first, second, *weights, scale, bias = inputs
    bins = [
        l2_normalize(spread_windows(first, indices[0]), norm),
        l2_normalize(spread_windows(second, indices[1]), norm, scale),
    ]
    expected = F.conv2d(torch.cat(bins, dim=1), torch.cat(weights, dim=1)[:, :, None, None], bias)
    found = merge(indices, norm, *inputs)
    torch.testing.assert_close(found, expected)
    cotangent = torch.linspace(-1, 1, found.numel(), dtype=found.dtype).view_as(found)
    gradients = (torch.autograd.grad(y, inputs, cotangent) for y in (found, expected))
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("norm", ["roi", "position"])
def test_gradients_are_those_of_finite_differences(norm):
    indices, inputs = features(2)
    torch.autograd.gradcheck(lambda *given: merge(indices, norm, *given), inputs)
