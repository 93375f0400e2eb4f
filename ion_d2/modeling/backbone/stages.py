"""Backbones of which the first stages are not trained, for good or for a while."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from detectron2.modeling import Backbone
from torch import nn


class StagedBackbone(Backbone):
    """A backbone that can freeze its first stages, or let them rest."""

    num_stages = 5  # that can rest
    _num_frozen = _num_resting = 0

    def stage_modules(self, first: int, last: int | None = None) -> Iterable[nn.Module]:
        """The modules of stages ``first`` + 1 to ``last``, submodules included; None for all."""
        raise NotImplementedError

    def rest_blocks(self, count: int) -> None:
        """Let the first ``count`` stages rest, and train all others that are not frozen.

        Unlike freezing this can be changed at any time. A resting stage has no gradients, and its
        batch normalization neither uses nor learns the statistics of a batch.
        """
        _train_parameters(self.stage_modules(self._num_frozen), True)
        _train_parameters(self.stage_modules(0, count), False)
        self._num_resting = count
        self.train(self.training)

    def freeze_parameters(self, count: int) -> None:
        """Stop training the first ``count`` stages for good."""
        _train_parameters(self.stage_modules(0, count), False)
        self._num_frozen = max(self._num_frozen, count)
        self.train(self.training)

    def train(self, mode: bool = True) -> Any:
        """Set training mode, except for stages that are frozen or rest."""
        super().train(mode)
        for module in self.stage_modules(0, max(self._num_frozen, self._num_resting)):
            module.training = False
        return self


def _train_parameters(modules: Iterable[nn.Module], on: bool) -> None:
    for module in modules:
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad = on
