"""Rounding errors of the spatial IRNN against float64, and random shapes against the definition."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from ion_d2.layers import DIRECTIONS, spatial_irnn, spatial_irnn_reference

LENGTH = 256
INPUTS = {
    "normal": lambda x: x,
    "positive": lambda x: x.abs(),
    "alternating": lambda x: x.abs() * (-1.0) ** torch.arange(LENGTH),
    "large": lambda x: x * 1e4,
    "large positive": lambda x: x.abs() * 1e4,
    "negative": lambda x: -x.abs(),
}
# Bounds on the largest error, relative to the largest entry.
BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 1e-2}


def transition(kind, channels):
    """Transitions near the identity, where a trained one starts, that neither grow nor vanish."""
    if kind == "identity":
        return None
    if kind == "diagonal":
        return torch.rand(len(DIRECTIONS), channels, dtype=torch.float64) * 0.1 + 0.9
    noise = torch.randn(len(DIRECTIONS), channels, channels, dtype=torch.float64)
    return torch.eye(channels, dtype=torch.float64) + noise * 0.1 / channels


def relative_error(got, exact):
    return ((got.double() - exact).abs().max() / exact.abs().max().clamp(min=1e-300)).item()


@pytest.mark.parametrize("kind", ["identity", "diagonal", "full"])
@pytest.mark.parametrize("case", INPUTS)
@pytest.mark.parametrize("dtype", BOUNDS)
def test_errors_against_float64(kind, case, dtype):
    torch.manual_seed(0)
    channels = 8
    x = INPUTS[case](torch.randn(1, channels, 3, LENGTH, dtype=torch.float64))
    weight = transition(kind, channels)
    leaves = [x.to(dtype).requires_grad_()]
    if weight is not None:
        leaves.append(weight.to(dtype).requires_grad_())
    grad = torch.randn(1, 4 * channels, 3, LENGTH, dtype=torch.float64).to(dtype)
    exact_leaves = [leaf.detach().double().requires_grad_() for leaf in leaves]
    exact = spatial_irnn_reference(*exact_leaves)
    exact_grads = torch.autograd.grad(exact, exact_leaves, grad.double())
    got = spatial_irnn(*leaves)
    grads = torch.autograd.grad(got, leaves, grad)
    assert got.isfinite().all()
    assert relative_error(got, exact) < BOUNDS[dtype]
    for mine, true in zip(grads, exact_grads):
        assert mine.isfinite().all()
        assert relative_error(mine, true) < BOUNDS[dtype]


@pytest.mark.parametrize("scale", [1e30, 1e-30])
def test_finite_wherever_the_exact_result_is(scale):
    torch.manual_seed(0)
    x = (torch.randn(1, 4, 3, LENGTH, dtype=torch.float64) * scale).float()
    for weight in (None, torch.full((4, 4), 0.99), torch.eye(4).repeat(4, 1, 1)):
        got = spatial_irnn(x, weight)
        exact = spatial_irnn_reference(x.double(), None if weight is None else weight.double())
        assert got.isfinite().all() and exact.max() < torch.finfo(torch.float32).max
        assert relative_error(got, exact) < BOUNDS[torch.float32]


def test_sixteen_bits_overflow_only_where_the_output_does():
    # The sum of the first half is above float16's range, the states of the second half are not.
    x = torch.cat([torch.full((4,), 3e4), torch.tensor([-9e4]), torch.full((3,), 1.0)])
    x = x.clamp(min=-6e4).half().view(1, 1, 1, -1)
    out = spatial_irnn(x, directions=("right",)).flatten()
    exact = spatial_irnn_reference(x.double(), directions=("right",)).flatten()
    fits = exact <= torch.finfo(torch.float16).max
    assert fits.sum() == 6
    assert torch.equal(out[fits].double(), exact[fits].half().double())
    assert not out.isnan().any()


shapes = st.tuples(st.integers(0, 3), st.integers(1, 5), st.integers(0, 7), st.integers(0, 7))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    shape=shapes,
    kind=st.sampled_from(["identity", "diagonal", "full"]),
    directions=st.lists(st.sampled_from(DIRECTIONS), min_size=1, max_size=5),
    padded=st.booleans(),
    channels_last=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_random_shapes_against_the_definition(shape, kind, directions, padded, channels_last, seed):
    generator = torch.Generator().manual_seed(seed)
    count, channels, height, width = shape
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    full = (len(directions), channels, channels)
    weight = {"identity": None, "diagonal": full[:2], "full": full}[kind]
    if weight is not None:
        weight = torch.randn(weight, generator=generator, dtype=torch.float64) * 0.5
    sizes = None
    if padded:
        limit = torch.tensor([height, width])
        sizes = (torch.rand(count, 2, generator=generator) * (limit + 1)).long()
    leaves = [leaf.requires_grad_() for leaf in (x, weight) if leaf is not None]
    results = []
    for operator in (spatial_irnn, spatial_irnn_reference):
        out = operator(x, weight, directions=directions, sizes=sizes)
        grads = torch.autograd.grad(out.square().sum(), leaves, materialize_grads=True)
        results.append([out, *grads])
    for got, expected in zip(*results):
        torch.testing.assert_close(got, expected)
