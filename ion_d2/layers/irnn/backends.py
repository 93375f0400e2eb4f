"""The back-ends of the spatial IRNN, and which of them serves which call.

A back-end is a module with four functions, whose arguments have been checked:

- ``unavailable(device, dtype, kind)`` says in a sentence why it cannot serve a map on such a
  device, of such a type, with a transition of such a kind ("identity", "diagonal" or "full");
  None if it can.
- ``memory_format(x)`` is the layout in which it returns maps.
- ``forward(x, weight, directions, sizes)`` is :func:`ion_d2.layers.spatial_irnn`.
- ``backward(grad, output, weight, directions, sizes)`` takes the gradient with respect to what
  ``forward`` returned, in any layout, and returns those with respect to ``x`` (of the output's
  type) and ``weight`` (of its type; None for the identity).
"""

from __future__ import annotations

import os
from typing import Callable

import torch
from torch import Tensor

from . import torch_backend, triton_backend
from .arguments import transition_kind

# In the order in which a call without a choice tries them.
BACKENDS = {"triton": triton_backend, "torch": torch_backend}
# Names a back-end for every call that does not name one itself.
ENVIRONMENT_VARIABLE = "ION_D2_IRNN_BACKEND"


def constant_when_compiled(function: Callable) -> Callable:
    """Hide a function from torch.compile, which cannot trace a look for a GPU or for Triton."""
    mark = getattr(getattr(torch, "compiler", None), "assume_constant_result", None)
    return function if mark is None else mark(function)


@constant_when_compiled
def _reason_against(name: str, device: torch.device, dtype: torch.dtype, kind: str) -> str | None:
    return BACKENDS[name].unavailable(device, dtype, kind)


def unavailable_backends(
    device: torch.device | str, dtype: torch.dtype = torch.float32, kind: str = "identity"
) -> dict[str, str]:
    """Why the back-ends that cannot serve a call cannot: a sentence for each of them.

    The call is that of a map on ``device``, of ``dtype``, with a transition of a ``kind``:
    "identity", "diagonal" or "full".
    """
    device = torch.device(device)
    reasons = {name: _reason_against(name, device, dtype, kind) for name in BACKENDS}
    return {name: reason for name, reason in reasons.items() if reason is not None}


def choose_backend(x: Tensor, weight: Tensor | None, name: str | None) -> str:
    """Choose the back-end of a call: the one that is named, or else the first that can serve it.

    Without a name, the environment variable may give one.

    Raises:
        ValueError: there is no such back-end.
        RuntimeError: it cannot serve the call; the message says why.
    """
    call = (x.device, x.dtype, transition_kind(weight))
    source = "backend"
    if name is None and os.environ.get(ENVIRONMENT_VARIABLE):
        source, name = ENVIRONMENT_VARIABLE, os.environ[ENVIRONMENT_VARIABLE]
    if name is None:
        # One by one: to say why it cannot serve, a back-end may have to load what it needs.
        return next(known for known in BACKENDS if _reason_against(known, *call) is None)
    if name not in BACKENDS:
        raise ValueError(f"{source} must be one of {tuple(BACKENDS)}, got {name!r}")
    reason = _reason_against(name, *call)
    if reason is not None:
        raise RuntimeError(f"{source} is {name!r}, which cannot be used here: {reason}")
    return name
