"""The spatial IRNN against a per-cell definition, torch's RNN, and finite differences."""

import itertools

import numpy as np
import pytest
import torch
from irnn_cases import KINDS, make_weight

from ion_d2.layers import DIRECTIONS, spatial_irnn, spatial_irnn_portable, spatial_irnn_reference

pytestmark = pytest.mark.slow


def portable(x, weight=None, *, directions=DIRECTIONS, sizes=None):
    return spatial_irnn_portable(x, weight, [DIRECTIONS.index(d) for d in directions], sizes)


OPERATORS = [spatial_irnn, spatial_irnn_reference]
SWEEPS = [*OPERATORS, portable]
STEPS = {"right": (0, 1), "left": (0, -1), "down": (1, 0), "up": (-1, 0)}


def per_cell(x, weight, directions, sizes):
    """The definition in plain Python: every cell asks the cell before it, in float64."""
    x = x.double().numpy()
    count, channels, height, width = x.shape
    out = np.zeros((count, len(directions), channels, height, width))
    for n, (d, name) in itertools.product(range(count), enumerate(directions)):
        rows, columns = (height, width) if sizes is None else sizes[n]
        dy, dx = STEPS[name]
        order = itertools.product(
            range(rows)[:: -1 if dy < 0 else 1], range(columns)[:: -1 if dx < 0 else 1]
        )
        for i, j in order:
            before = np.zeros(channels)
            if 0 <= i - dy < rows and 0 <= j - dx < columns:
                before = out[n, d, :, i - dy, j - dx]
            if weight is not None:
                w = weight[d].double().numpy()
                before = w @ before if w.ndim == 2 else w * before
            out[n, d, :, i, j] = np.maximum(before + x[n, :, i, j], 0)
    return torch.from_numpy(out.reshape(count, -1, height, width))


def make(kind, shape, directions=DIRECTIONS, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return x, make_weight(kind, shape[1], directions, torch.float64, generator)


@pytest.mark.parametrize("operator", SWEEPS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 2, 1, 6), (2, 1, 5, 1), (1, 3, 1, 1)])
@pytest.mark.parametrize("directions", [DIRECTIONS, ("up",), ("left", "down")])
def test_equals_per_cell_definition(operator, kind, shape, directions):
    x, weight = make(kind, shape, directions, seed=sum(shape))
    expected = per_cell(x, weight, directions, None)
    torch.testing.assert_close(operator(x, weight, directions=directions), expected)


@pytest.mark.parametrize("operator", SWEEPS)
@pytest.mark.parametrize("kind", KINDS)
def test_sizes_leave_padding_out(operator, kind):
    x, weight = make(kind, (3, 2, 5, 6), seed=3)
    sizes = [[3, 4], [5, 6], [1, 2]]
    expected = per_cell(x, weight, DIRECTIONS, sizes)
    x[0, :, 3:], x[0, :, :, 4:] = float("nan"), float("inf")
    got = operator(x, weight, sizes=torch.tensor(sizes))
    torch.testing.assert_close(got, expected)
    assert (got[0, :, 3:] == 0).all() and (got[0, :, :, 4:] == 0).all()


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_equals_torch_rnn_with_the_same_weights(direction):
    torch.manual_seed(0)
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    weight = torch.randn(1, 4, 4, dtype=torch.float64) * 0.5
    rnn = torch.nn.RNN(4, 4, nonlinearity="relu", bias=False, batch_first=True).double()
    with torch.no_grad():
        rnn.weight_ih_l0.copy_(torch.eye(4))
        rnn.weight_hh_l0.copy_(weight[0])
    # Lines along the direction of travel as sequences: (lines, steps, channels).
    lines = x.permute(0, 2, 3, 1) if direction in ("right", "left") else x.permute(0, 3, 2, 1)
    sequences = lines.reshape(-1, lines.shape[2], 4)
    backwards = direction in ("left", "up")
    states = rnn(sequences.flip(1) if backwards else sequences)[0]
    states = (states.flip(1) if backwards else states).reshape(lines.shape)
    order = (0, 3, 1, 2) if direction in ("right", "left") else (0, 3, 2, 1)
    got = spatial_irnn(x, weight, directions=(direction,))
    torch.testing.assert_close(got, states.permute(*order))


def test_hand_computed_line():
    x = torch.tensor([1.0, -3.0, 2.0, 1.0]).view(1, 1, 1, 4)
    right = spatial_irnn(x, directions=("right",))
    left = spatial_irnn(x, directions=("left",))
    assert right.flatten().tolist() == [1, 0, 2, 3]
    assert left.flatten().tolist() == [1, 0, 3, 1]


@pytest.mark.parametrize("operator", SWEEPS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [None, [[2, 3], [3, 1]]])
@pytest.mark.parametrize("directions", [DIRECTIONS, ("up",), ("left", "down")])
def test_gradcheck(operator, kind, sizes, directions):
    options = {"directions": directions, "sizes": None if sizes is None else torch.tensor(sizes)}
    given = make(kind, (2, 2, 3, 3), directions, seed=7)
    leaves = [leaf.requires_grad_() for leaf in given if leaf is not None]
    assert torch.autograd.gradcheck(lambda *leaves: operator(*leaves, **options), leaves)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("shape", [(0, 2, 3, 3), (2, 2, 0, 3), (2, 2, 3, 0)])
def test_empty_maps(operator, shape):
    assert operator(torch.zeros(shape)).shape == (shape[0], 8, *shape[2:])


def test_half_precision_runs_in_float32():
    # 4096 steps of 1 stall at 256 in bfloat16, and at 2048 in float16.
    x = torch.ones(1, 1, 1, 4096)
    for dtype in (torch.bfloat16, torch.float16):
        out = spatial_irnn(x.to(dtype), directions=("right",))
        assert out.dtype == dtype and out[..., -1].item() == 4096
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = spatial_irnn(x, torch.ones(1, 1, 1), directions=("right",))
    assert out.dtype == torch.float32 and out[..., -1].item() == 4096


@pytest.mark.parametrize(
    ("kwargs", "error", "words"),
    [
        ({"x": torch.zeros(2, 3, 4)}, ValueError, "x must have the shape"),
        ({"x": torch.zeros(1, 1, 2, 2, dtype=torch.long)}, TypeError, "x must be a floating"),
        ({"x": torch.zeros(1, 1, 2, 2).to(torch.float8_e5m2)}, TypeError, "x must be .*float16"),
        ({"directions": ("right", "north")}, ValueError, "north"),
        ({"directions": ()}, ValueError, "directions"),
        ({"directions": "up"}, ValueError, "directions"),
        ({"weight": torch.zeros(4, 2)}, ValueError, r"\(4, 3\).*\(4, 2\)"),
        ({"weight": torch.zeros(4, 3, dtype=torch.long)}, TypeError, "weight"),
        ({"weight": torch.zeros(4, 3, device="meta")}, ValueError, "weight must be on x's device"),
        ({"sizes": torch.tensor([[2, 2]])}, ValueError, "sizes"),
        ({"sizes": torch.tensor([[2, 2], [5, 2]])}, ValueError, "4 x 5.*5, 2"),
        ({"sizes": torch.tensor([[2.0, 2], [3, 2]])}, TypeError, "sizes must be an integer"),
    ],
)
def test_bad_arguments_are_named(kwargs, error, words):
    for operator in OPERATORS:
        with pytest.raises(error, match=words):
            operator(**{"x": torch.zeros(2, 3, 4, 5), **kwargs})
