"""What the recurrences of a context block hold at each cell."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import numpy as np
from torch import Tensor, nn

from ion_d2.modeling.context import SpatialIRNN, SpatialRNN


class StackStates(NamedTuple):
    """The hidden states of one recurrent stack for one image."""

    name: str  # of the module, e.g. "context.irnns.0"
    norms: dict[
        str, np.ndarray
    ]  # direction of travel -> (H, W), L2 norm of its state over channels


@contextmanager
def watch_states(backbone: nn.Module) -> Iterator[list[StackStates]]:
    """Note the hidden states of every recurrent stack of a backbone, inside the ``with`` block.

    Yields:
        A list that each pass of an image through a stack adds to, for the first image of a batch.
    """
    found: list[StackStates] = []

    def note(name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        states = output[0].detach().float().chunk(len(module.directions))  # D of [C, H, W]
        norms = [state.norm(dim=0).cpu().numpy() for state in states]
        found.append(StackStates(name, dict(zip(module.directions, norms))))

    handles = [
        module.register_forward_hook(partial(note, name))
        for name, module in backbone.named_modules()
        if isinstance(module, (SpatialIRNN, SpatialRNN))
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
