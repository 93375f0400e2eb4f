"""The spatial IRNN as an operator of PyTorch's: registration, compilation, layouts, types."""

import pytest
import torch
from torch import library

from ion_d2.layers import DIRECTIONS, spatial_irnn, spatial_irnn_reference
from ion_d2.layers.irnn import op
from ion_d2.layers.irnn.arguments import transition_kind

pytestmark = pytest.mark.slow

KINDS = ("identity", "diagonal", "full")
needs_custom_op = pytest.mark.skipif(
    not op.CAN_REGISTER, reason="this PyTorch registers no operators"
)


def make_weight(kind, channels, dtype=torch.float32):
    shape = {"identity": None, "diagonal": (4, channels), "full": (4, channels, channels)}[kind]
    return None if shape is None else torch.randn(shape, dtype=dtype) * 0.5


@pytest.fixture
def uninitialized_memory_is_nan():
    """PyTorch fills what ``empty`` returns with NaN in this mode."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [None, [[3, 2], [0, 0], [4, 5]]])
def test_every_cell_is_written(kind, sizes, uninitialized_memory_is_nan):
    torch.manual_seed(0)
    x = torch.randn(3, 4, 4, 5, requires_grad=True)
    weight = make_weight(kind, 4)
    leaves = [x] if weight is None else [x, weight.requires_grad_()]
    sizes = None if sizes is None else torch.tensor(sizes)
    results = []
    for operator in (spatial_irnn, spatial_irnn_reference):
        out = operator(x, weight, sizes=sizes)
        results.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    for got, expected in zip(*results):
        torch.testing.assert_close(got, expected)


@needs_custom_op
@pytest.mark.parametrize("kind", KINDS)
def test_registration_passes_pytorchs_own_checks(kind):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 5, requires_grad=True)
    weight = make_weight(kind, 3)
    weight = None if weight is None else weight.requires_grad_()
    for sizes in (None, torch.tensor([[4, 5], [2, 3]])):
        library.opcheck(op.spatial_irnn_op, (x, weight, [0, 1, 2, 3], sizes, "torch"))


@pytest.mark.parametrize("kind", KINDS)
def test_autograd_function_for_old_pytorch_gives_the_same(kind):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 5, requires_grad=True)
    weight = make_weight(kind, 3)
    leaves = [x] if weight is None else [x, weight.requires_grad_()]
    results = []
    for call in (op.SpatialIRNNFunction.apply, op.spatial_irnn_op):
        out = call(x, weight, [0, 1, 2, 3], None, "torch")
        results.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    for got, expected in zip(*results):
        assert torch.equal(got, expected)


@needs_custom_op
@pytest.mark.parametrize("kind", KINDS)
def test_compiles_into_one_graph(kind):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 5, requires_grad=True)
    weight = make_weight(kind, 3)

    def function(x, weight, sizes):
        return spatial_irnn(x * 2, weight, sizes=sizes) + 1

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    for sizes in (None, torch.tensor([[4, 5], [2, 3]])):
        expected = function(x, weight, sizes)
        got = compiled(x, weight, sizes)
        torch.testing.assert_close(got, expected)
        grads = [torch.autograd.grad(out.square().sum(), x)[0] for out in (got, expected)]
        torch.testing.assert_close(*grads)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("grad_layout", ["contiguous", "channels_last", "expanded"])
def test_gradients_of_any_layout(kind, grad_layout):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 5, requires_grad=True)
    weight = make_weight(kind, 3)
    grad = torch.randn(2, 12, 4, 5)
    if grad_layout == "channels_last":
        grad = grad.to(memory_format=torch.channels_last)
    elif grad_layout == "expanded":
        grad = torch.randn(1, 12, 1, 1).expand(2, 12, 4, 5)
    got, expected = (
        torch.autograd.grad(operator(x, weight), x, grad)[0]
        for operator in (spatial_irnn, spatial_irnn_reference)
    )
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 3, 1, 5), (2, 1, 4, 1), (0, 3, 4, 5)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_output_is_channels_last(shape, layout):
    x = torch.randn(shape).to(memory_format=layout).requires_grad_()
    out = spatial_irnn(x)
    assert out.permute(0, 2, 3, 1).is_contiguous()
    out.sum().backward()
    assert x.grad.shape == x.shape


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_types_of_results_and_gradients(kind, dtype):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 5).to(dtype).requires_grad_()
    # Under autocast the input is of 16 bits and the parameter of 32.
    weight = make_weight(kind, 3)
    out = spatial_irnn(x, weight if weight is None else weight.requires_grad_())
    out.sum().backward()
    assert out.dtype == x.grad.dtype == dtype
    assert weight is None or weight.grad.dtype == torch.float32


def test_gradients_flow_to_the_input_alone_and_to_the_weight_alone():
    x, weight = torch.rand(1, 2, 3, 3), torch.rand(4, 2, 2)
    for leaf in (x, weight):
        leaf.requires_grad_()
        spatial_irnn(x, weight).sum().backward()
        assert leaf.grad.abs().sum() > 0
        leaf.requires_grad_(False)
    assert not spatial_irnn(x, weight).requires_grad


@pytest.mark.parametrize("kind", KINDS)
def test_nan_of_the_input_comes_out_as_in_the_definition(kind):
    torch.manual_seed(0)
    x = torch.randn(1, 3, 4, 5)
    x[0, 1, 2, 2] = float("nan")
    weight = make_weight(kind, 3)
    got, expected = spatial_irnn(x, weight), spatial_irnn_reference(x, weight)
    assert expected.isnan().any()
    torch.testing.assert_close(got, expected, equal_nan=True)


@pytest.mark.parametrize("kind", KINDS)
def test_directions_may_repeat(kind):
    torch.manual_seed(0)
    directions = ("up", "right", "up")
    x = torch.randn(1, 3, 4, 5, requires_grad=True)
    weight = make_weight(kind, 3)
    weight = None if weight is None else weight[:3]
    got = spatial_irnn(x, weight, directions=directions)
    expected = spatial_irnn_reference(x, weight, directions=directions)
    torch.testing.assert_close(got, expected)
    grads = [torch.autograd.grad(out.square().sum(), x)[0] for out in (got, expected)]
    torch.testing.assert_close(*grads)


def test_kind_of_a_weight():
    assert [transition_kind(make_weight(kind, 3)) for kind in KINDS] == list(KINDS)
    assert len(DIRECTIONS) == 4
