"""Rounding errors of the spatial IRNN against float64, and random shapes against the definition."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from irnn_cases import KINDS, assert_as_defined, differentiated, make_weight

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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", INPUTS)
@pytest.mark.parametrize("dtype", BOUNDS)
def test_errors_against_float64(kind, case, dtype):
    torch.manual_seed(0)
    channels = 8
    x = INPUTS[case](torch.randn(1, channels, 3, LENGTH, dtype=torch.float64))
    weight = transition(kind, channels)
    grad = torch.randn(1, 4 * channels, 3, LENGTH, dtype=torch.float64)
    rounded = [None if t is None else t.to(dtype) for t in (x, weight, grad)]
    exact = [None if t is None else t.double() for t in rounded]
    for mine, true in zip(
        differentiated(spatial_irnn, *rounded), differentiated(spatial_irnn_reference, *exact)
    ):
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
    kind=st.sampled_from(KINDS),
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
    weight = make_weight(kind, channels, directions, torch.float64, generator)
    sizes = None
    if padded:
        limit = torch.tensor([height, width])
        sizes = (torch.rand(count, 2, generator=generator) * (limit + 1)).long()
    assert_as_defined(x, weight, directions=directions, sizes=sizes)
