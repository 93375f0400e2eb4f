"""The spatial IRNN as an operator of PyTorch's: registration, compilation, layouts, types."""

import pytest
import torch
from irnn_cases import KINDS, assert_as_defined, differentiated, make_weight
from torch import library
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx

from ion_d2.layers import spatial_irnn, spatial_irnn_reference
from ion_d2.layers.irnn import op
from ion_d2.modeling.context.spatial_irnn import SpatialIRNN

pytestmark = pytest.mark.slow

needs_custom_op = pytest.mark.skipif(
    not op.CAN_REGISTER, reason="this PyTorch registers no operators"
)


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
    sizes = None if sizes is None else torch.tensor(sizes)
    assert_as_defined(torch.randn(3, 4, 4, 5), make_weight(kind, 4), sizes=sizes)


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
    x, weight = torch.randn(2, 3, 4, 5), make_weight(kind, 3)

    def results(call):
        def operator(x, weight=None):
            return call(x, weight, [0, 1, 2, 3], None, "torch")

        return differentiated(operator, x, weight)

    expected = results(op.spatial_irnn_op)
    assert all(map(torch.equal, results(op.SpatialIRNNFunction.apply), expected))


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


@needs_custom_op
@pytest.mark.parametrize("kind", KINDS)
def test_a_module_compiles_for_any_size(kind):
    """Its weight has a known shape then, the map has not."""
    module = SpatialIRNN(3, transition=kind)
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend="aot_eager")
    for shape in ((2, 3, 4, 5), (1, 3, 6, 3)):
        x = torch.randn(shape)
        torch.testing.assert_close(compiled(x), module(x))


@pytest.mark.parametrize("kind", KINDS)
def test_derivatives_in_forward_mode_and_of_torch_func(kind):
    """They cannot see into a registered operator: PyTorch gives 0, or an error of its own."""
    torch.manual_seed(0)
    x, v = torch.randn(2, 2, 3, 4, 5, dtype=torch.float64)
    weight = make_weight(kind, 3, dtype=torch.float64)

    def energy(call):
        return lambda x: call(x, weight).square().sum()

    results = []
    for call in (spatial_irnn, spatial_irnn_reference):
        _, pushed = torch.func.jvp(lambda x, call=call: call(x, weight), (x,), (v,))
        gradient = torch.func.grad(energy(call))(x)
        curved = torch.func.jvp(torch.func.grad(energy(call)), (x,), (v,))[1]
        each = torch.func.vmap(torch.func.grad(energy(call)))(torch.stack([x, v]))
        with forward_ad.dual_level():
            dual = forward_ad.unpack_dual(call(forward_ad.make_dual(x, v), weight)).tangent
        results.append([pushed, gradient, curved, each, dual])
    torch.testing.assert_close(*results)
    assert results[0][0].abs().sum() > 1


@needs_custom_op
@pytest.mark.parametrize("kind", KINDS)
def test_derivatives_of_torch_func_compile_and_none_is_0(kind):
    torch.manual_seed(0)
    x, v = torch.randn(2, 2, 3, 4, 5)
    weight = make_weight(kind, 3)

    def energy(x):
        return spatial_irnn(x, weight).square().sum()

    each = torch.func.vmap(torch.func.grad(lambda a: energy(a[None])))
    twice = torch.func.grad(lambda x: (torch.func.grad(energy)(x) * v).sum())
    for function in (torch.func.grad(energy), each, twice):
        compiled = torch.compile(function, backend="aot_eager")
        torch.testing.assert_close(compiled(x), function(x))

    def push(x):
        return torch.func.jvp(lambda x: spatial_irnn(x, weight), (x,), (v,))[1]

    # PyTorch cannot trace the forward mode in all cases; it then says so, and gives no 0.
    try:
        pushed = torch.compile(push, backend="eager")(x)
    except torch._dynamo.exc.TorchRuntimeError:
        pushed = push(x)
    torch.testing.assert_close(pushed, push(x))


@pytest.mark.parametrize("kind", ["diagonal", "full"])
def test_the_weights_gradient_has_the_layout_that_a_compiler_expects(kind):
    x = torch.randn(2, 3, 4, 5)
    weight = make_weight(kind, 3).mT.contiguous().mT
    arguments = [x.repeat(1, 4, 1, 1), weight, [0, 1, 2, 3], None, "torch"]
    grad = torch.randn(2, 12, 4, 5)
    found, expected = (f(grad, *arguments)[1] for f in (op._backward, op._fake_backward))
    assert found.shape == expected.shape and found.stride() == expected.stride()
    assert not weight.is_contiguous()


def forward_mode(sweep, x):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(sweep(forward_ad.make_dual(x, x))).primal


@pytest.mark.parametrize("kind", KINDS)
def test_the_state_stays_exact_under_autocast_and_torch_func(kind):
    torch.manual_seed(0)
    x, weight = torch.randn(2, 8, 12, 9), make_weight(kind, 8)

    def sweep(x):
        return spatial_irnn(x, weight)

    def mixed_energy(x):
        with torch.autocast("cpu", torch.bfloat16):
            return sweep(x).sum()

    exact = spatial_irnn_reference(x, weight)
    with torch.autocast("cpu", torch.bfloat16):
        each = torch.func.vmap(lambda a: sweep(a[None])[0])(x)
        found = [each, torch.func.jvp(sweep, (x,), (x,))[0], forward_mode(sweep, x)]
    for states in found:
        torch.testing.assert_close(states, exact)
    gradient = torch.autograd.grad(sweep(x.requires_grad_()).sum(), x)[0]
    torch.testing.assert_close(torch.func.grad(mixed_energy)(x.detach()), gradient)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 3, 0, 4), (1, 3, 4, 0), (0, 3, 4, 4)])
def test_empty_maps_under_torch_func(kind, shape):
    weight = make_weight(kind, 3)
    x = torch.empty(2, *shape)
    swept = torch.func.vmap(lambda a: spatial_irnn(a, weight))(x)
    assert swept.shape == (2, *spatial_irnn(x[0], weight).shape)
    assert torch.func.grad(lambda a: spatial_irnn(a, weight).sum())(x[0]).shape == shape


@pytest.mark.parametrize("kind", KINDS)
def test_maps_without_a_device(kind):
    """The device "meta" knows no autocast."""
    weight = make_weight(kind, 3)
    weight = None if weight is None else weight.to("meta")
    x = torch.empty(2, 1, 3, 4, 5, device="meta")
    assert torch.func.vmap(lambda a: spatial_irnn(a, weight))(x).shape == (2, 1, 12, 4, 5)


def test_sizes_whose_values_cannot_be_read():
    x, sizes = torch.ones(2, 1, 3, 3), torch.tensor([[2, 3], [3, 3]])

    def sweep(x, sizes):
        return spatial_irnn(x, sizes=sizes)

    expected = sweep(x, sizes)
    each = torch.func.vmap(sweep)(x[:, None], sizes[:, None])
    torch.testing.assert_close(each[:, 0], expected)
    with FakeTensorMode() as mode:
        assert sweep(mode.from_tensor(x), mode.from_tensor(sizes)).shape == expected.shape
    for tracing_mode in ("real", "fake", "symbolic"):
        graph = make_fx(sweep, tracing_mode=tracing_mode)(x, sizes)
        torch.testing.assert_close(graph(x, sizes.flip(0)), sweep(x, sizes.flip(0)))


def test_directions_may_be_any_iterable():
    x = torch.randn(1, 2, 3, 4)
    wanted = spatial_irnn(x, directions=("right", "up"))
    assert torch.equal(spatial_irnn(x, directions=iter(["right", "up"])), wanted)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("grad_layout", ["contiguous", "channels_last", "expanded"])
def test_gradients_of_any_layout(kind, grad_layout):
    torch.manual_seed(0)
    grad = torch.randn(2, 12, 4, 5)
    if grad_layout == "channels_last":
        grad = grad.to(memory_format=torch.channels_last)
    elif grad_layout == "expanded":
        grad = torch.randn(1, 12, 1, 1).expand(2, 12, 4, 5)
    assert_as_defined(torch.randn(2, 3, 4, 5), make_weight(kind, 3), grad)


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
