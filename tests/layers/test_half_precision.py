"""Nothing overflows float16, and float64 pools as float32 does."""

import pytest
import torch

from ion_d2.layers import spatial_irnn
from ion_d2.layers.roi_max_pool import ROIMaxPool
from ion_d2.modeling.context.irnn_block import IRNN


@pytest.mark.parametrize("weight", [None, torch.ones(4, 2), torch.eye(2).repeat(4, 1, 1)])
def test_sums_beyond_float16_end_at_its_largest_number(weight):
    x = torch.full((1, 2, 50, 50), 2000.0, dtype=torch.float16)
    assert spatial_irnn(x, weight).max().item() == 65504


@pytest.mark.parametrize("transition", ["full", "diagonal", "identity", "max"])
def test_the_context_block_runs_in_float32_in_place_of_float16(transition):
    torch.manual_seed(0)
    block = IRNN(4, hidden_dim=4, out_dim=4, transition=transition, init="pass_through").eval()
    x = torch.full((1, 4, 50, 50), 2000.0)
    try:
        region = torch.autocast("cpu", torch.float16)
    except RuntimeError:
        pytest.skip("this PyTorch has no float16 autocast on a CPU")
    with torch.no_grad(), region:
        mixed = block(x.half())
    with torch.no_grad():
        torch.testing.assert_close(mixed, block(x))


def test_the_context_block_takes_maps_of_a_device_without_autocast():
    block = IRNN(4, hidden_dim=4, out_dim=4).to("meta")
    assert block(torch.empty(1, 4, 5, 6, device="meta")).shape == (1, 4, 5, 6)


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("count", [0, 3])
def test_roi_max_pooling_in_every_type(dtype, grad, count):
    torch.manual_seed(0)
    x = torch.randn(1, 4, 9, 9).to(dtype)
    rois = torch.tensor([[0, 1.0, 2, 60, 70], [0, 5, 5, 33, 34], [0, 0, 0, 9, 99]])[:count]
    expected = ROIMaxPool((3, 3), 1 / 8)(x.float(), rois)
    got = ROIMaxPool((3, 3), 1 / 8)(x.requires_grad_(grad), rois)
    assert torch.equal(got, expected.to(dtype)) and got.shape == (count, 4, 3, 3)


def test_gradient_of_roi_max_pooling():
    x = torch.randperm(128).double().view(1, 2, 8, 8).requires_grad_()
    rois = torch.tensor([[0, 0.0, 0, 40, 60], [0, 8, 8, 60, 60]])
    assert torch.autograd.gradcheck(lambda x: ROIMaxPool((2, 2), 1 / 8)(x, rois), x)
