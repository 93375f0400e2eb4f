"""Batch renormalization, alone and in the context blocks."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ion_d2.engine.setup import load_config
from ion_d2.errors import IONError
from ion_d2.layers import spatial_irnn_reference
from ion_d2.modeling.backbone.batch_renorm import BatchRenorm2d
from ion_d2.modeling.backbone.norms import build_norm
from ion_d2.modeling.context import IRNN, GlobalAverage, build_context_block


def batches(count, *, shape=(2, 3, 5, 4), seed=0):
    generator = torch.Generator().manual_seed(seed)
    offset = torch.tensor([10.0, -2.0, 0.5])[:, None, None]
    draws = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(count))
    return [3 * draw + offset for draw in draws]


def trained(count=7, momentum=0.1):
    norm = BatchRenorm2d(3, momentum=momentum).double().train()
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.5, 0.5, -1.0]))
        norm.bias.copy_(torch.tensor([0.1, 0.2, 0.3]))
        for x in batches(count):
            norm(x)
    return norm


def test_training_and_evaluation_are_one_function():
    norm = trained()
    x = batches(1, seed=5)[0]
    expected = norm.eval()(x)
    torch.testing.assert_close(norm.train()(x), expected)
    # And now the batch has become part of the past.
    assert not torch.allclose(norm.eval()(x), expected)


def test_what_else_is_in_the_batch_does_not_matter():
    x, other, another = batches(3, shape=(1, 3, 5, 4), seed=7)
    with_other = trained()(torch.cat([x, other]))[0]
    with_another = trained()(torch.cat([x, 100 + another]))[0]
    assert torch.equal(with_other, with_another)


def test_the_gradient_is_batch_normalizations():
    norm = trained()
    past_mean, past = norm.running_mean.clone(), norm.running_var.clone()
    x = batches(1, seed=6)[0].requires_grad_()
    upstream = torch.randn(x.shape, dtype=torch.float64)
    tensors = (x, norm.weight, norm.bias)
    gradient, for_weight, for_bias = torch.autograd.grad(norm(x), tensors, upstream)
    # The same through torch's own, times the ratio of the deviations (r of the paper, Eq. 2).
    batch = nn.functional.batch_norm(x, None, None, norm.weight, training=True, eps=norm.eps)
    variance = x.detach().var(dim=(0, 2, 3), unbiased=False)
    ratio = ((variance + norm.eps) / (past + norm.eps)).sqrt()[:, None, None]
    torch.testing.assert_close(gradient, ratio * torch.autograd.grad(batch, x, upstream)[0])
    # So no channel as a whole is asked to move.
    assert gradient.sum(dim=(0, 2, 3)).abs().max() < 1e-12
    # Weight and bias act on what the forward pass has standardized.
    standardized = (x - past_mean[:, None, None]) / (past + norm.eps).sqrt()[:, None, None]
    torch.testing.assert_close(for_weight, (upstream * standardized).sum(dim=(0, 2, 3)))
    torch.testing.assert_close(for_bias, upstream.sum(dim=(0, 2, 3)))


def test_statistics_are_the_plain_mean_at_first_and_then_decay():
    norm = BatchRenorm2d(3, momentum=0.25).double().train()
    means = [x.mean(dim=(0, 2, 3)) for x in batches(6)]
    for step, x in enumerate(batches(6), start=1):
        norm(x)
        if step <= 4:
            torch.testing.assert_close(norm.running_mean, torch.stack(means[:step]).mean(0))
    first_four = torch.stack(means[:4]).mean(0)
    expected = (first_four * 0.75 + means[4] * 0.25) * 0.75 + means[5] * 0.25
    torch.testing.assert_close(norm.running_mean, expected)


@pytest.mark.parametrize("counted", [True, False])
def test_loaded_statistics_are_gone_on_from(counted):
    plain = nn.BatchNorm2d(3)
    plain.running_mean.fill_(5.0)
    state = plain.state_dict()
    if counted:
        state["num_batches_tracked"].fill_(1000)
    else:
        del state["num_batches_tracked"]
    norm = BatchRenorm2d(3, momentum=0.25).train()
    norm.load_state_dict(state, strict=False)
    norm(torch.ones(2, 3, 4, 4))
    assert norm.running_mean.tolist() == [4.0, 4.0, 4.0]
    fresh = BatchRenorm2d(3, momentum=0.25).train()
    fresh.load_state_dict(BatchRenorm2d(3).state_dict())
    fresh(torch.ones(2, 3, 4, 4))
    assert fresh.running_mean.tolist() == [1.0, 1.0, 1.0]


def test_only_valid_cells_count():
    x = batches(1)[0]
    sizes = torch.tensor([[5, 2], [3, 4]])
    padded, plain = BatchRenorm2d(3).double().train(), BatchRenorm2d(3).double().train()
    result = padded(x, sizes)
    cells = torch.cat([x[0, :, :, :2].flatten(1), x[1, :, :3].flatten(1)], dim=1)[None, :, None]
    expected = plain(cells)[0, :, 0]
    torch.testing.assert_close(result[0, :, :, :2].flatten(1), expected[:, :10])
    torch.testing.assert_close(result[1, :, :3].flatten(1), expected[:, 10:])
    torch.testing.assert_close(padded.running_var, plain.running_var)


def test_half_precision_is_standardized_in_float32():
    # Squares of 300 overflow float16.
    x = (300 + torch.randn(2, 3, 8, 8)).half()
    result = BatchRenorm2d(3).train()(x)
    assert result.dtype == torch.float16
    assert result.float().mean().abs() < 0.01 and 0.9 < result.float().std() < 1.1


def test_one_cell_gives_the_bias():
    assert BatchRenorm2d(3).train()(torch.randn(1, 3, 1, 1)).abs().max() < 1e-4


def test_the_bias_of_a_block_starts_in_its_norm():
    block = IRNN(3, hidden_dim=4, out_dim=4, norm="BRN", bias_init=-0.5)
    assert all((conv.norm.bias == -0.5).all() for conv in block.convs)
    assert (block.output.norm.bias == 0).all()


def test_global_average_is_normalized_over_images():
    block = GlobalAverage(1, norm="BRN").train()
    x = torch.tensor([[[[1.0, 3.0]]], [[[6.0, 0.0]]]])
    # Means 2 and, of the first cell alone, 6: standardized to -1 and 1.
    result = block(x, torch.tensor([[1, 2], [1, 1]]))
    torch.testing.assert_close(result[:, 0, 0, 0], torch.tensor([-1.0, 1.0]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("stack", [0, 1])
def test_rows_then_columns_starts_as_sums_over_rectangles(stack):
    torch.manual_seed(5)
    kwargs = {"hidden_dim": 3, "out_dim": 3, "dropout": 0.0, "num_stacks": stack + 1}
    block = IRNN(3, init="rows_then_columns", **kwargs)
    x = torch.rand(1, 3, 4, 5)
    rows = spatial_irnn_reference(x, directions=("right", "left")).unflatten(1, (2, 3)).mean(1)
    columns = spatial_irnn_reference(rows, directions=("down", "up")).unflatten(1, (2, 3)).mean(1)
    torch.testing.assert_close(block(x), columns if stack else rows)


def test_rows_then_columns_with_directions_of_one_kind_reads_all_of_them():
    directions = [["right", "left"], ["up"]]
    kwargs = {"hidden_dim": 3, "out_dim": 3, "dropout": 0.0, "directions": directions}
    x = torch.rand(1, 3, 4, 5)
    one = IRNN(3, init="rows_then_columns", **kwargs)
    assert torch.equal(one(x), IRNN(3, init="pass_through", **kwargs)(x))


def test_an_unknown_norm_names_the_key():
    with pytest.raises(IONError, match="MODEL.CONTEXT.NORM is 'GN'.*BRN"):
        build_norm("GN", 4, masked=True)
    assert build_norm("", 4, masked=True) is None


@pytest.mark.parametrize("name", ["IRNN", "Conv", "GlobalAverage"])
def test_the_key_gives_a_norm_in_place_of_each_bias(name):
    keys = ["MODEL.CONTEXT.NORM", "BRN", "MODEL.CONTEXT.NAME", name]
    modules = list(build_context_block(load_config("configs/ion_tiny.yaml", keys), 8).modules())
    convs = [m for m in modules if isinstance(m, nn.Conv2d)]
    norms = [m for m in modules if isinstance(m, BatchRenorm2d)]
    assert all(conv.bias is None and conv.norm in norms for conv in convs)
    assert len(norms) == max(len(convs), 1)


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpoint_of_activations_counts_a_batch_once(reentrant):
    """Its second forward pass standardizes as the first did."""
    plain, checkpointed = trained(1), trained(1)
    upstream = torch.randn((2, 3, 5, 4), dtype=torch.float64)
    for x in batches(3, seed=8):
        inputs = [x.clone().requires_grad_() for _ in range(2)]
        plain(inputs[0]).backward(upstream)
        checkpoint(checkpointed, inputs[1], use_reentrant=reentrant).backward(upstream)
        assert torch.equal(inputs[0].grad, inputs[1].grad)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, checkpointed.state_dict()[name]), name
    assert torch.equal(plain.weight.grad, checkpointed.weight.grad)


def test_training_compiles_whole():
    norm, x = trained(1), batches(1, seed=9)[0]
    compiled = torch.compile(copy.deepcopy(norm), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), norm(x))
