"""The spatial IRNN as one operator of PyTorch's, with its gradient.

As a registered operator, ``torch.ops.ion_d2.spatial_irnn``, it is one node to torch.compile and
torch.export. PyTorch before 2.4 cannot register one from Python; there it is a plain autograd
function.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, library

from .arguments import DIRECTIONS
from .backends import BACKENDS
from .layout import empty_map

_SCHEMA = "(Tensor x, Tensor? weight, int[] directions, Tensor? sizes, str backend) -> Tensor"
_BACKWARD_SCHEMA = (
    "(Tensor grad, Tensor output, Tensor? weight, int[] directions, Tensor? sizes, str backend)"
    " -> Tensor[]"
)


# Whether this PyTorch can: 2.4 and newer.
CAN_REGISTER = hasattr(library, "custom_op")


def _names(directions: Sequence[int]) -> tuple[str, ...]:
    return tuple(DIRECTIONS[d] for d in directions)


def _forward(
    x: Tensor, weight: Tensor | None, directions: Sequence[int], sizes: Tensor | None, backend: str
) -> Tensor:
    out = BACKENDS[backend].forward(x, weight, _names(directions), sizes)
    # A sum beyond float16 ends at its largest number, not at inf.
    return out.clamp_(max=torch.finfo(torch.float16).max) if out.dtype == torch.float16 else out


def _backward(
    grad: Tensor,
    output: Tensor,
    weight: Tensor | None,
    directions: Sequence[int],
    sizes: Tensor | None,
    backend: str,
) -> list[Tensor]:
    grad_x, grad_weight = BACKENDS[backend].backward(
        grad, output, weight, _names(directions), sizes
    )
    return [grad_x] if grad_weight is None else [grad_x, grad_weight]


def _fake_forward(
    x: Tensor, weight: Tensor | None, directions: Sequence[int], sizes: Tensor | None, backend: str
) -> Tensor:
    return empty_map(x, len(directions) * x.shape[1], BACKENDS[backend].memory_format(x))


def _fake_backward(
    grad: Tensor,
    output: Tensor,
    weight: Tensor | None,
    directions: Sequence[int],
    sizes: Tensor | None,
    backend: str,
) -> list[Tensor]:
    channels = output.shape[1] // len(directions)
    grad_x = empty_map(output, channels, BACKENDS[backend].memory_format(output))
    return [grad_x] if weight is None else [grad_x, torch.empty_like(weight)]


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, weight, ctx.directions, sizes, ctx.backend = inputs
    ctx.save_for_backward(output, weight, sizes)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    output, weight, sizes = ctx.saved_tensors
    grads = _call_backward(grad, output, weight, ctx.directions, sizes, ctx.backend)
    return grads[0], (grads[1] if weight is not None else None), None, None, None


def _register() -> tuple[Any, Any]:
    forward = library.custom_op("ion_d2::spatial_irnn", _forward, mutates_args=(), schema=_SCHEMA)
    backward = library.custom_op(
        "ion_d2::spatial_irnn_backward", _backward, mutates_args=(), schema=_BACKWARD_SCHEMA
    )
    forward.register_fake(_fake_forward)
    backward.register_fake(_fake_backward)
    forward.register_autograd(_differentiate, setup_context=_save)
    return forward, backward


class SpatialIRNNFunction(torch.autograd.Function):
    """The operator where PyTorch cannot register it."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        """Run :func:`_forward` and keep what the gradient needs."""
        output = _forward(*inputs)
        _save(ctx, inputs, output)
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients with respect to the inputs of :meth:`forward`."""
        return _differentiate(ctx, grad)


if CAN_REGISTER:
    spatial_irnn_op, _call_backward = _register()
else:
    spatial_irnn_op, _call_backward = SpatialIRNNFunction.apply, _backward
