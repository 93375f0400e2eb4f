"""Maps, weights and the definition in float64 for the cases of the Triton back-end.

Whether Triton compiles kernels or interprets them is settled when it is imported, for the whole
process. Interpreted, they run on the CPU.
"""

import os

import pytest
import torch
from irnn_cases import differentiated

from ion_d2.layers import DIRECTIONS, spatial_irnn_reference
from ion_d2.layers.irnn import triton_backend

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
on_gpu = pytest.mark.skipif(INTERPRETED, reason="needs a GPU, not the interpreter")


if INTERPRETED:
    import triton_interpreter

    triton_interpreter.amend()


@pytest.fixture(autouse=True)
def poison_new_tensors():
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
    wide = [None if t is None else t.double() for t in (x, weight, grad)]
    return differentiated(spatial_irnn_reference, *wide, directions=directions, sizes=sizes)


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
