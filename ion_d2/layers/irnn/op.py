"""The spatial IRNN as users call it, and as one operator of PyTorch's with its gradient.

As a registered operator, ``torch.ops.ion_d2.spatial_irnn``, it is one node to torch.compile and
torch.export. PyTorch before 2.4 cannot register one from Python; there it is a plain autograd
function.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, library
from torch.autograd import forward_ad

from ..precision import without_autocast
from .arguments import DIRECTIONS, check_arguments, empty_map
from .backends import BACKENDS, choose_backend, constant_when_compiled
from .portable import spatial_irnn_portable


def spatial_irnn(
    x: Tensor,
    weight: Tensor | None = None,
    *,
    directions: Sequence[str] = DIRECTIONS,
    sizes: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Sweep a recurrent ReLU network over a map in several directions (paper sec. 3.2).

    Along each direction of travel, ``h_t = relu(weight[d] @ h_{t-1} + x_t)`` from ``h_0 = 0`` (Eq.
    1); without a weight it is ``h_t = relu(h_{t-1} + x_t)`` (Eq. 2). "right" starts at column 0,
    "left" at the last column, "down" at row 0 and "up" at the last row. The state is kept in
    float32 at least, also under autocast; the "triton" back-end multiplies that of 16-bit maps by a
    full matrix in TF32. Gradients flow to ``x`` and ``weight``, once (not twice).

    Args:
        x: (N, C, H, W), floating point, any memory layout; N, H or W may be 0. Channels last needs
            no copy.
        weight: None for the identity, (D, C) for one factor a channel, or (D, C, C) for a full
            matrix in each of the D directions.
        directions: D of "right", "left", "down", "up", in the order wanted in the output.
        sizes: (N, 2) integers, the valid (height, width) of each image in cells, counted from the
            top left corner. Cells outside are absent: no state crosses them and the output is 0
            there. They are compared with the map where their values are there and no GPU has to be
            waited for.
        backend: name of the implementation, a key of ``ion_d2.layers.irnn.BACKENDS``. None: what
            the environment variable ``ION_D2_IRNN_BACKEND`` names, or else the fastest.

    Returns:
        (N, D * C, H, W) of x's type, direction-major in the order given; channels last in memory
        from the "torch" back-end, in x's memory format from "triton".

    Raises:
        TypeError: ``x`` or ``weight`` is not floating point of 16, 32 or 64 bits, or ``sizes`` not
            integer.
        ValueError: a shape, device, direction, size or the name of the back-end does not fit.
        RuntimeError: the back-end that is asked for cannot be used here.

    Example:
        >>> spatial_irnn(torch.ones(1, 1, 1, 3), directions=("right",))
        tensor([[[[1., 2., 3.]]]])
    """
    tracing = torch.jit.is_tracing()
    if not isinstance(directions, str):
        directions = tuple(directions)
    if not tracing:
        check_arguments(x, weight, directions, sizes)
    indices = [DIRECTIONS.index(name) for name in directions]
    if sizes is not None:
        sizes = sizes.to(x.device)
    if tracing:
        return spatial_irnn_portable(x, weight, indices, sizes)
    if _is_transformed():
        return _plain_sweep(x, weight, indices, sizes)
    return spatial_irnn_op(x, weight, indices, sizes, choose_backend(x, weight, backend))


@constant_when_compiled
def _is_transformed() -> bool:
    """Whether torch.func or forward-mode differentiation looks on.

    They cannot differentiate a registered operator; the forward mode would silently give 0.
    """
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def _plain_sweep(
    x: Tensor, weight: Tensor | None, directions: list[int], sizes: Tensor | None
) -> Tensor:
    """The sweep in operators of PyTorch's own, which have all derivatives."""
    if not x.numel():
        return x.repeat(1, len(directions), 1, 1)
    with without_autocast(x.device.type):
        return spatial_irnn_portable(x, weight, directions, sizes)


_PARAMETERS = "Tensor? weight, int[] directions, Tensor? sizes, str backend"
# Whether this PyTorch can register operators: 2.4 and newer.
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
    grads = BACKENDS[backend].backward(grad, output, weight, _names(directions), sizes)
    # Of weights that are transposed, too, as the fake says.
    return [it.contiguous() if i else it for i, it in enumerate(grads) if it is not None]


def _fake_forward(
    x: Tensor, weight: Any, directions: Sequence[int], sizes: Any, backend: str
) -> Tensor:
    return empty_map(x, len(directions) * x.shape[1], BACKENDS[backend].memory_format(x))


def _fake_backward(
    grad: Any, output: Tensor, weight: Any, directions: Sequence[int], sizes: Any, backend: str
) -> list[Tensor]:
    memory_format = BACKENDS[backend].memory_format(output)
    grad_x = empty_map(output, output.shape[1] // len(directions), memory_format)
    return [grad_x] if weight is None else [grad_x, weight.new_empty(weight.shape)]


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, weight, ctx.directions, sizes, ctx.backend = inputs
    ctx.save_for_backward(output, weight, sizes)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    output, weight, sizes = ctx.saved_tensors
    grads = _call_backward(grad, output, weight, ctx.directions, sizes, ctx.backend)
    return grads[0], (grads[1] if weight is not None else None), None, None, None


def _register(name: str, function: Any, fake: Any, schema: str) -> Any:
    op = library.custom_op(f"ion_d2::{name}", function, mutates_args=(), schema=schema)
    op.register_fake(fake)
    return op


class SpatialIRNNFunction(torch.autograd.Function):
    """The operator where PyTorch cannot register it."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        output = _forward(*inputs)
        _save(ctx, inputs, output)
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _differentiate(ctx, grad)


if CAN_REGISTER:
    spatial_irnn_op = _register(
        "spatial_irnn", _forward, _fake_forward, f"(Tensor x, {_PARAMETERS}) -> Tensor"
    )
    spatial_irnn_op.register_autograd(_differentiate, setup_context=_save)
    _call_backward = _register(
        "spatial_irnn_backward", _backward, _fake_backward,
        f"(Tensor grad, Tensor output, {_PARAMETERS}) -> Tensor[]",
    )  # fmt: skip
else:
    spatial_irnn_op, _call_backward = SpatialIRNNFunction.apply, _backward
