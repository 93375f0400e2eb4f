"""The public function: checks, choice of a back-end, and the call."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .arguments import DIRECTIONS, check_arguments
from .backends import choose_backend
from .op import spatial_irnn_op
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
    "left" at the last column, "down" at row 0 and "up" at the last row. The recurrence runs in
    float32 at least, also under autocast. Gradients flow to ``x`` and ``weight``, once (not twice).

    Args:
        x: (N, C, H, W), floating point, any memory layout; N, H or W may be 0. Channels last needs
            no copy.
        weight: None for the identity, (D, C) for one factor a channel, or (D, C, C) for a full
            matrix in each of the D directions.
        directions: D of "right", "left", "down", "up", in the order wanted in the output.
        sizes: (N, 2) integers, the valid (height, width) of each image in cells, counted from the
            top left corner. Cells outside are absent: no state crosses them and the output is 0
            there. They are compared with the map where that does not make a GPU wait.
        backend: name of the implementation, a key of ``ion_d2.layers.irnn.BACKENDS``. None: what
            the environment variable ``ION_D2_IRNN_BACKEND`` names, or else the fastest.

    Returns:
        (N, D * C, H, W) of x's type, direction-major in the order given; channels last in memory
        from the "torch" back-end, in x's memory format from "triton".

    Raises:
        TypeError: ``x`` or ``weight`` is not of 16, 32 or 64 bits, floating point, or ``sizes`` not
            integer.
        ValueError: a shape, device, direction, size or the name of the back-end does not fit.
        RuntimeError: the back-end that is asked for cannot be used here.

    Example:
        >>> spatial_irnn(torch.ones(1, 1, 1, 3), directions=("right",))
        tensor([[[[1., 2., 3.]]]])
    """
    tracing = torch.jit.is_tracing()
    if not tracing:
        check_arguments(x, weight, directions, sizes)
    indices = [DIRECTIONS.index(name) for name in directions]
    if sizes is not None:
        sizes = sizes.to(x.device)
    if tracing:
        return spatial_irnn_portable(x, weight, indices, sizes)
    return spatial_irnn_op(x, weight, indices, sizes, choose_backend(x, weight, backend))
