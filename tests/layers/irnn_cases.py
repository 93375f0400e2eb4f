"""Transitions of the spatial IRNN for the tests, and the comparison with its definition."""

import torch

from ion_d2.layers import DIRECTIONS, spatial_irnn, spatial_irnn_reference

KINDS = ("identity", "diagonal", "full")


def make_weight(kind, channels, directions=DIRECTIONS, dtype=torch.float32, generator=None):
    shape = {"identity": None, "diagonal": (channels,), "full": (channels, channels)}[kind]
    if shape is None:
        return None
    return torch.randn(len(directions), *shape, generator=generator, dtype=dtype) * 0.5


def differentiated(operator, x, weight, grad=None, **options):
    """The states, and the gradients of the input and of the weight, if there is one."""
    leaves = [t.detach().requires_grad_() for t in (x, weight) if t is not None]
    out = operator(*leaves, **options)
    grad = 2 * out.detach() if grad is None else grad
    return [out.detach(), *torch.autograd.grad(out, leaves, grad, materialize_grads=True)]


def assert_as_defined(x, weight, grad=None, **options):
    got = differentiated(spatial_irnn, x, weight, grad, **options)
    expected = differentiated(spatial_irnn_reference, x, weight, grad, **options)
    torch.testing.assert_close(got, expected)
