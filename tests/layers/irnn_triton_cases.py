"""What the Triton back-end must do. test_irnn_triton.py runs this file in processes of its own.

Whether Triton compiles kernels or interprets them is settled when it is imported, for the whole
process. Interpreted, they run on the CPU, where 16 steps of a program take 50 ms: the maps are
small, but large enough for lines of several tiles and for several programs, none of them full.
"""

import itertools
import os
import sys
from pathlib import Path

import pytest
import torch

from ion_d2.layers import DIRECTIONS, spatial_irnn, spatial_irnn_reference
from ion_d2.layers.irnn import triton_backend
from ion_d2.layers.irnn.backends import ENVIRONMENT_VARIABLE, choose_backend

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
from irnn_gradient import exact_gradient  # noqa: E402
from irnn_per_cell import per_cell_irnn  # noqa: E402

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
on_gpu = pytest.mark.skipif(INTERPRETED, reason="needs a GPU, not the interpreter")
SUBSETS = [s for k in (1, 2) for s in itertools.combinations(DIRECTIONS, k)]


if INTERPRETED:
    import triton_interpreter

    triton_interpreter.amend()


@pytest.fixture(autouse=True)
def _poison_new_tensors():
    """Tensors are born full of NaN, so that a cell which no kernel writes is found out."""
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)


def make(shape, kind="identity", directions=DIRECTIONS, dtype=torch.float32, layout="contiguous"):
    """A map in the given layout, a weight, and a gradient of the output."""
    generator = torch.Generator().manual_seed(sum(shape))

    def randn(*size):
        return torch.randn(*size, generator=generator).to(DEVICE, dtype)

    n, c, h, w = shape
    x, grad = randn(n, c, h, w), randn(n, len(directions) * c, h, w)
    if layout == "channels_last":
        x, grad = (t.contiguous(memory_format=torch.channels_last) for t in (x, grad))
    elif layout == "strided":
        x, grad = randn(n, c + 1, h, 2 * w)[:, 1:, :, ::2], randn(1, 1, 1, 1).expand_as(grad)
    elif layout == "transposed":
        x, grad = randn(n, c, w, h).transpose(2, 3), grad.mT.contiguous().mT
    if kind == "identity":
        return x, None, grad
    weight_shape = (len(directions), c) if kind == "diagonal" else (len(directions), c, c)
    weight = torch.rand(weight_shape, generator=generator) * 2 - 1
    if kind == "full" and c:
        weight /= c**0.5
    return x, weight.to(DEVICE, dtype), grad


def expected(x, weight, grad, directions, sizes):
    """Output and gradients of the definition in float64."""
    inputs = [t.detach().double().requires_grad_() for t in (x, weight) if t is not None]
    output = spatial_irnn_reference(*inputs, directions=directions, sizes=sizes)
    return [output.detach(), *torch.autograd.grad(output, inputs, grad.double())]


def assert_close(got, want, tolerance):
    """Compare relative to the largest value: a sum's error is that of its largest terms."""
    scale = want.abs().max().item() if want.numel() else 1.0
    torch.testing.assert_close(got.double(), want, rtol=0, atol=tolerance * scale)


def check(x, weight, grad, directions=DIRECTIONS, sizes=None, tolerance=1e-5):
    output = triton_backend.forward(x, weight, directions, sizes)
    grad_x, grad_weight = triton_backend.backward(grad, output, weight, directions, sizes)
    results = [output, grad_x] if weight is None else [output, grad_x, grad_weight]
    wants = expected(x, weight, grad, directions, sizes)
    for got, want, like in zip(results, wants, (x, x, weight)):
        assert got.dtype == like.dtype and got.shape == want.shape
        assert_close(got, want, tolerance)
    assert weight is not None or grad_weight is None
    return results


@pytest.mark.parametrize("shape", [(1, 1, 2, 34), (2, 2, 17, 3), (1, 34, 1, 2), (1, 1, 1, 1)])
def test_diagonal_equals_definition(shape):
    check(*make(shape, "diagonal"))


def test_identity_equals_definition():
    check(*make((2, 2, 3, 18)))


# Several blocks of lines, of channels, and of channels multiplied at a time.
@pytest.mark.parametrize("shape", [(17, 3, 2, 3), (1, 70, 2, 3), (1, 1, 1, 1)])
def test_full_equals_definition(shape):
    check(*make(shape, "full"))


@pytest.mark.parametrize(
    ("layout", "shape", "kind"),
    [
        ("channels_last", (1, 34, 2, 2), "diagonal"),
        ("channels_last", (1, 3, 2, 18), "diagonal"),
        ("strided", (1, 2, 3, 18), "diagonal"),
        ("transposed", (1, 2, 3, 18), "diagonal"),
        ("channels_last", (2, 3, 4, 5), "full"),
        ("strided", (2, 3, 4, 5), "full"),
        ("transposed", (2, 3, 4, 5), "full"),
    ],
)
def test_memory_layouts(layout, shape, kind):
    x, weight, grad = make(shape, kind, layout=layout)
    for result in check(x, weight, grad)[:2]:
        channels_last = result.is_contiguous(memory_format=torch.channels_last)
        assert channels_last if layout == "channels_last" else result.is_contiguous()


@pytest.mark.parametrize("kind", ["diagonal", "full"])
def test_weights_of_any_layout(kind):
    x, weight, grad = make((1, 3, 3, 4), kind)
    wider = torch.cat([weight, torch.full_like(weight, float("nan"))], dim=-1)
    for given in (
        weight[:1].expand_as(weight),  # one for all directions
        weight.repeat_interleave(2, dim=0)[::2],
        wider[..., :3],
    ):
        assert not given.is_contiguous()
        check(x, given, grad)


@pytest.mark.parametrize("directions", [*SUBSETS, ("up", "left", "up"), DIRECTIONS[::-1]])
def test_directions(directions):
    check(*make((1, 2, 3, 4), "diagonal", directions), directions)
    check(*make((1, 2, 3, 4), "full", directions), directions)


@pytest.mark.parametrize(
    ("layout", "shape", "kind"),
    [
        ("contiguous", (2, 1, 3, 18), "diagonal"),
        ("channels_last", (2, 2, 3, 14), "diagonal"),
        ("contiguous", (2, 2, 3, 12), "full"),
    ],
)
def test_sizes_leave_padding_out(layout, shape, kind):
    x, weight, grad = make(shape, kind, layout=layout)
    x[0, :, 2:], x[0, :, :, 11:], x[1] = float("nan"), float("inf"), float("nan")
    sizes = torch.tensor([[2, 11], [0, 5]], device=DEVICE)
    output, grad_x, _ = check(x, weight, grad, sizes=sizes)
    for result in (output, grad_x):
        assert result[0, :, :2, :11].any()
        assert not (result[0, :, 2:].any() or result[0, :, :, 11:].any() or result[1].any())


@pytest.mark.parametrize(
    ("dtype", "weight_dtype", "tolerance"),
    [
        (torch.float64, torch.float64, 1e-13),
        (torch.bfloat16, torch.float32, 1e-2),
        (torch.float16, torch.float16, 2e-3),
        (torch.float32, torch.bfloat16, 1e-2),
    ],
)
def test_types(dtype, weight_dtype, tolerance):
    x, weight, grad = make((1, 1, 2, 18), "diagonal", dtype=dtype)
    check(x, weight.to(weight_dtype), grad, tolerance=tolerance)
    if dtype != torch.float64:
        x, weight, grad = make((1, 2, 3, 4), "full", dtype=dtype)
        check(x, weight.to(weight_dtype), grad, tolerance=tolerance)


@pytest.mark.parametrize("directions", [("right",), ("down",), ("left", "up")])
def test_the_gradient_of_the_weight_is_summed_in_float32(directions):
    """In float16 it would end at 65504."""
    x = torch.full((1, 1, 12, 12), 60.0, device=DEVICE, dtype=torch.float16)
    weight = torch.full((len(directions), 1), 0.9, device=DEVICE)
    output = triton_backend.forward(x, weight, directions, None)
    grad = torch.full_like(output, 100.0)
    _, grad_weight = triton_backend.backward(grad, output, weight, directions, None)
    want = expected(x, weight, grad, directions, None)[2]
    assert want.min() > 2 * 65504
    assert_close(grad_weight, want, 2e-3)


def test_products_keep_float32_under_autocast():
    x, weight, grad = make((2, 3, 4, 5), "full")
    output = triton_backend.forward(x, weight, DIRECTIONS, None)
    plain = triton_backend.backward(grad, output, weight, DIRECTIONS, None)
    with torch.autocast(DEVICE, torch.bfloat16):
        got = triton_backend.backward(grad, output, weight, DIRECTIONS, None)
    assert all(torch.equal(a, b) for a, b in zip(got, plain))


@pytest.mark.skipif(
    not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="of PyTorch 2.9 and newer"
)
def test_both_ways_to_allow_tf32(monkeypatch):
    from ion_d2.layers.irnn.triton_recurrence import _precision

    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    try:
        for precision, want in (("ieee", "tf32x3"), ("tf32", "tf32")):
            matmul.fp32_precision = precision
            assert _precision(torch.float32) == want
            assert _precision(torch.bfloat16) == "tf32"
    finally:
        matmul.fp32_precision = before


@pytest.mark.skipif(not hasattr(torch, "compiler"), reason="of PyTorch 2.1 and newer")
@pytest.mark.parametrize("kind", ["identity", "diagonal", "full"])
def test_the_choice_of_the_back_end_breaks_no_graph(kind):
    x, weight, _ = make((1, 2, 3, 4), kind)
    compiled = torch.compile(spatial_irnn, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x, weight), spatial_irnn(x, weight))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_long_adversarial_lines(dtype, tolerance):
    """256 steps of all positive cells, of cells that alternate, of cells around 1e4."""
    noise = torch.rand(256, generator=torch.Generator().manual_seed(0)) + 0.5
    signs = torch.tensor([1.0, -1.0]).repeat(128)
    lines = torch.stack([noise, noise * signs, (noise - 1) * 1e4])
    x = lines.reshape(1, 3, 1, 256).to(DEVICE, dtype)
    output = triton_backend.forward(x, None, ("right",), None)
    grad = torch.ones_like(output)
    grad_x, _ = triton_backend.backward(grad, output, None, ("right",), None)
    wants = expected(x, None, grad, ("right",), None)
    for c, (got, want) in itertools.product(range(3), zip((output, grad_x), wants)):
        assert_close(got[:, c], want[:, c], tolerance)


def test_nan_and_infinity_come_out_as_in_the_definition():
    nan, inf = float("nan"), float("inf")
    x = torch.tensor([[1, nan, 2, -3], [1, inf, 2, -3], [1, -inf, inf, -inf]], device=DEVICE)
    x = x.reshape(1, 3, 1, 4)
    for weight in (None, torch.tensor([[0.0, 0.0, 2.0]], device=DEVICE)):
        got = triton_backend.forward(x, weight, ("right",), None)
        want = spatial_irnn_reference(x, weight, directions=("right",))
        torch.testing.assert_close(got, want, equal_nan=True, rtol=0, atol=0)


@on_gpu
@pytest.mark.parametrize("kind", ["diagonal", "full"])
def test_two_runs_give_the_same_bits(kind):
    x, weight, grad = make((2, 32, 38, 63), kind)
    first, second = check(x, weight, grad), check(x, weight, grad)
    assert all(torch.equal(a, b) for a, b in zip(first, second))


@pytest.mark.parametrize("shape", [(0, 2, 3, 3), (2, 0, 3, 3), (2, 2, 0, 3), (2, 2, 3, 0)])
@pytest.mark.parametrize("kind", ["diagonal", "full"])
def test_empty_maps(shape, kind):
    check(*make(shape, kind))


def test_unavailable_says_why():
    def unavailable(device=DEVICE, dtype=torch.float32, kind="identity"):
        return triton_backend.unavailable(torch.device(device), dtype, kind)

    assert all(unavailable(kind=kind) is None for kind in ("identity", "diagonal", "full"))
    assert "float8" in unavailable(dtype=torch.float8_e5m2)
    assert "float64" in unavailable(dtype=torch.float64, kind="full")


def test_it_is_chosen_where_it_serves(monkeypatch):
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    for kind in ("identity", "diagonal", "full"):
        x, weight, _ = make((1, 1, 1, 1), kind)
        assert choose_backend(x, weight, None) == "triton"
    assert choose_backend(x.double(), weight, None) == "torch"


@on_gpu
@pytest.mark.parametrize("kind", ["identity", "diagonal", "full"])
def test_cuda_graph_replays_on_new_values(kind):
    x, weight, grad = make((2, 32, 38, 63), kind)
    sizes = torch.tensor([[38, 63], [20, 30]], device=DEVICE)

    def run():
        output = triton_backend.forward(x, weight, DIRECTIONS, sizes)
        return output, *triton_backend.backward(grad, output, weight, DIRECTIONS, sizes)

    run()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run()
    x.normal_()
    sizes.copy_(torch.tensor([[1, 2], [38, 63]]))
    graph.replay()
    for got, want in zip(captured, run()):
        if got is None:
            continue
        torch.testing.assert_close(got, want, rtol=0, atol=0)


@on_gpu
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["identity", "diagonal", "full"])
def test_real_sizes(dtype, layout, kind):
    """With millions of states, some are so near 0 that rounding decides what the ReLU lets through.

    The gradient is therefore compared with that of the states as they came out.
    """
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    for shape in [(2, 512, 38, 63), (1, 64, 256, 256), (1, 256, 100, 152)]:
        x, weight, grad = make(shape, kind, dtype=dtype, layout=layout)
        output = triton_backend.forward(x, weight, DIRECTIONS, None)
        exact = spatial_irnn_reference(x.double(), None if weight is None else weight.double())
        assert_close(output, exact, tolerance)
        found = triton_backend.backward(grad, output, weight, DIRECTIONS, None)
        for got, want in zip(found, exact_gradient(output, weight, grad)):
            assert (got is None) == (want is None)
            if got is not None:
                assert_close(got, want, tolerance)


@on_gpu
def test_more_cells_than_32_bits_count():
    if torch.cuda.mem_get_info()[0] < 24 * 2**30:
        pytest.skip("needs 24 GiB of free GPU memory")
    x = torch.zeros(1, 3, 32768, 32768, dtype=torch.bfloat16, device=DEVICE)
    x[0, 2, 5] = 1
    output = triton_backend.forward(x, None, ("down",), None)
    assert (output[0, 2, 5:] == 1).all() and not output[0, :2].any()


@pytest.mark.parametrize("kind", ["identity", "diagonal"])
def test_rival_of_the_benchmark(kind):
    x, weight, grad = make((2, 3, 4, 5), kind)
    leaves = [x] if weight is None else [x, weight]
    results = []
    for operator in (per_cell_irnn, spatial_irnn_reference):
        out = operator(*(leaf.requires_grad_() for leaf in leaves), *[None] * (2 - len(leaves)))
        results.append([out, *torch.autograd.grad(out, leaves, grad)])
    for got, expected in zip(*results):
        torch.testing.assert_close(got, expected)
