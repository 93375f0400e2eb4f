"""An exponential moving average of the weights, kept beside those that are trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ..errors import IONError
from .steps import unwrap_distributed

# Names in a checkpoint of the average's state, and of the trained weights that --resume takes: with
# an average, "model" is the averaged weights. Older files, without TRAINED, have the trained ones.
EMA, TRAINED = "ema", "trained"
_PREFIX = "module."  # AveragedModel's, before the names of the model's own tensors


def build_average(cfg: CfgNode, model: nn.Module) -> AveragedModel | None:
    """Build the moving average that ``SOLVER.EMA_DECAY`` asks for; None without a decay.

    After n steps the average keeps the share min(EMA_DECAY, (1 + n) / (10 + n)) of itself, so that
    it forgets the random start of a training early. Its ``module`` has the averaged weights; its
    buffers, such as the statistics of batch normalization, are those of ``model``, which may not be
    wrapped for distributed training.

    Raises:
        IONError: ``TEST.PRECISE_BN`` measures other weights.
    """
    decay = cfg.SOLVER.EMA_DECAY
    if not decay:
        return None
    if cfg.TEST.PRECISE_BN.ENABLED:
        raise IONError(
            "TEST.PRECISE_BN.ENABLED measures statistics of the trained weights, SOLVER.EMA_DECAY "
            "has their average evaluated; switch one of the two off."
        )

    def average(old: Tensor, new: Tensor, _: Tensor | int) -> Tensor:
        # PyTorch passes the count once more for each tensor, moved to its GPU, where to read it
        # would stall the step.
        count = int(averaged.n_averaged)
        return torch.lerp(old, new, 1 - min(decay, (1 + count) / (10 + count)))

    averaged = AveragedModel(model, avg_fn=average)
    return averaged


def averaged_weights(state: object) -> dict[str, Any]:
    """Take the averaged tensors, by the model's own keys, from the state of an AveragedModel.

    There are none in what is no such state.
    """
    items = state.items() if isinstance(state, Mapping) else ()
    return {k[len(_PREFIX) :]: v for k, v in items if str(k).startswith(_PREFIX)}


class AverageWeights(HookBase):
    """Takes the weights of each step into the average."""

    def __init__(self, average: AveragedModel) -> None:
        self._average = average

    def before_step(self) -> None:
        """Remember how many steps were left out so far (``SOLVER.SKIP_NON_FINITE``)."""
        self._skipped = self.trainer._trainer.skipped

    def after_step(self) -> None:
        if self.trainer._trainer.skipped == self._skipped:
            self._average.update_parameters(unwrap_distributed(self.trainer.model))
