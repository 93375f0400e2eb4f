"""What the Triton back-end must do. test_irnn_triton.py runs this file in processes of its own.

Interpreted, 16 steps of a program take 50 ms: the maps are small, but large enough for lines of
several tiles and for several programs, none of them full.
"""

import itertools

import pytest
import torch
from irnn_cases import KINDS
from triton_helpers import (
    DEVICE,
    assert_close,
    check,
    expected,
    make,
    poison_new_tensors,  # noqa: F401 (a fixture)
)

from ion_d2.layers import DIRECTIONS, spatial_irnn, spatial_irnn_reference
from ion_d2.layers.irnn import triton_backend
from ion_d2.layers.irnn.backends import ENVIRONMENT_VARIABLE, choose_backend

SUBSETS = [s for k in (1, 2) for s in itertools.combinations(DIRECTIONS, k)]


EMPTY = [(0, 2, 3, 3), (2, 0, 3, 3), (2, 2, 0, 3), (2, 2, 3, 0)]
SHAPES = {
    "identity": [(2, 2, 3, 18)],
    "diagonal": [(1, 1, 2, 34), (2, 2, 17, 3), (1, 34, 1, 2), (1, 1, 1, 1), *EMPTY],
    # Several blocks of lines, of channels, and of channels multiplied at a time.
    "full": [(17, 3, 2, 3), (1, 70, 2, 3), (1, 1, 1, 1), *EMPTY],
}


@pytest.mark.parametrize(("kind", "shape"), [(k, shape) for k in KINDS for shape in SHAPES[k]])
def test_equals_definition(kind, shape):
    check(*make(shape, kind))


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
    from ion_d2.layers.irnn.triton_full import _precision

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
@pytest.mark.parametrize("kind", KINDS)
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


def test_unavailable_says_why():
    def unavailable(device=DEVICE, dtype=torch.float32, kind="identity"):
        return triton_backend.unavailable(torch.device(device), dtype, kind)

    assert all(unavailable(kind=kind) is None for kind in KINDS)
    assert "float8" in unavailable(dtype=torch.float8_e5m2)
    assert "float64" in unavailable(dtype=torch.float64, kind="full")


def test_it_is_chosen_where_it_serves(monkeypatch):
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    for kind in KINDS:
        x, weight, _ = make((1, 1, 1, 1), kind)
        assert choose_backend(x, weight, None) == "triton"
    assert choose_backend(x.double(), weight, None) == "torch"
