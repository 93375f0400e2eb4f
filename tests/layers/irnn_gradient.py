"""The exact gradient of the spatial IRNN through the cells that its ReLUs let through.

A state that is exactly 3e-8 may come out as 0 in float32. No error worth the name, but the gradient
stops there, so that of the exact states is another one. The right reference for a gradient takes
the states as they came out; these in turn are compared with the definition.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ion_d2.layers import DIRECTIONS
from ion_d2.layers.irnn.arguments import TRAVEL


def exact_gradient(
    states: Tensor, weight: Tensor | None, grad: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Go back through a sweep in all four directions, in float64.

    Args:
        states: (N, 4 * C, H, W), what the sweep returned.
        weight: None, (4, C) or (4, C, C), as it was there.
        grad: the gradient with respect to ``states``.

    Returns:
        The gradients with respect to the map, (N, C, H, W), and to the weight, or None.
    """
    states, grad = states.detach().double(), grad.double()
    of_map: list[Tensor] = []
    of_weight: list[Tensor] = []
    for d, name in enumerate(DIRECTIONS):
        # Turned so that the travel is along the rows, to the right.
        axis, backwards = TRAVEL[name]
        flipped = (axis,) if backwards else ()
        state, incoming = (
            t.chunk(4, dim=1)[d].flip(flipped).transpose(axis, 3) for t in (states, grad)
        )
        matrix = None if weight is None else weight[d].detach().double()
        errors = _back(state, matrix, incoming)
        of_map.append(errors.transpose(axis, 3).flip(flipped))
        if matrix is not None:
            pairs = "nchw,nchw->c" if matrix.dim() == 1 else "nohw,nihw->oi"
            of_weight.append(torch.einsum(pairs, errors[..., 1:], state[..., :-1]))
    return torch.stack(of_map).sum(dim=0), torch.stack(of_weight) if of_weight else None


def _back(state: Tensor, matrix: Tensor | None, incoming: Tensor) -> Tensor:
    """The gradient with respect to what each step adds, from the last step to the first."""
    error = torch.zeros_like(incoming[..., 0])
    errors = torch.empty_like(incoming)
    for t in reversed(range(incoming.shape[3])):
        if matrix is not None and matrix.dim() == 1:
            error = error * matrix[:, None]
        elif matrix is not None:
            error = torch.einsum("noh,oi->nih", error, matrix)
        error = (error + incoming[..., t]) * (state[..., t] > 0)
        errors[..., t] = error
    return errors
