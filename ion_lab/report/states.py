"""What the recurrences of a context block hold at each cell."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from torch import Tensor, nn

from ion_d2.modeling.context import SpatialIRNN, SpatialRNN


class StackStates(NamedTuple):
    """The hidden states of one recurrent stack for one image.

    Attributes:
        name: of the module, e.g. "context.irnns.0".
        norms: direction of travel -> (H, W) array, the L2 norm over channels of that direction's
            state at each cell.
    """

    name: str
    norms: dict[str, np.ndarray]


@contextmanager
def watch_states(backbone: nn.Module) -> Iterator[list[StackStates]]:
    """Note the hidden states of every recurrent stack, inside the ``with`` block.

    Args:
        backbone: any backbone; one without recurrence gives none.

    Yields:
        A list that each pass of an image through a stack adds to, for the first image of a batch.
    """
    found: list[StackStates] = []
    handles = []
    for name, module in backbone.named_modules():
        if isinstance(module, (SpatialIRNN, SpatialRNN)):
            hook = _Note(name, module.directions, found)
            handles.append(module.register_forward_hook(hook))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


class _Note:
    """A hook that notes the norms of a stack's output."""

    def __init__(self, name: str, directions: tuple[str, ...], found: list[StackStates]) -> None:
        self._name, self._directions, self._found = name, directions, found

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        states = output[0].detach().float().chunk(len(self._directions))  # D of [C, H, W]
        norms = [state.norm(dim=0).cpu().numpy() for state in states]
        self._found.append(StackStates(self._name, dict(zip(self._directions, norms))))
