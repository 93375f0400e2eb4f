"""Training in stages, each with its own frozen blocks and learning rate (paper sec. 4.1)."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.solver import LRMultiplier, WarmupParamScheduler
from fvcore.common.param_scheduler import (
    CompositeParamScheduler,
    ExponentialParamScheduler,
    ParamScheduler,
)
from torch import nn
from torch.optim import Optimizer

from ..errors import IONError
from ..value_rules import COUNT, POSITIVE, check_value, number

logger = logging.getLogger(__name__)

_REQUIRED, _OPTIONAL = ("MAX_ITER", "BASE_LR"), ("END_LR", "FREEZE_AT", "WARMUP_ITERS")
_EXAMPLE = "\"{'MAX_ITER': 40000, 'BASE_LR': 5e-3, 'END_LR': 1e-4, 'FREEZE_AT': 5}\""
# Keys of SOLVER that describe a schedule without stages.
_OVERRULED = ("MAX_ITER", "BASE_LR", "BASE_LR_END", "LR_SCHEDULER_NAME", "STEPS", "GAMMA",
              "NUM_DECAYS", "WARMUP_ITERS")  # fmt: skip


@dataclass(frozen=True)
class Stage:
    """One stage of the training.

    Its iteration i, counted from 0, has the rate ``base_lr * (end_lr / base_lr) ** (i / max_iter)``
    after a warm-up of ``warmup_iters``; the first ``freeze_at`` blocks of the backbone rest.
    """

    max_iter: int
    base_lr: float
    end_lr: float
    freeze_at: int
    warmup_iters: int = 0


def read_stages(cfg: CfgNode) -> list[Stage]:
    """Read ``SOLVER.STAGES``; an ordinary schedule has none.

    Raises:
        IONError: an entry is not a mapping, misses a key, has an unknown one or a bad value.
    """
    stages, frozen = cfg.SOLVER.STAGES, cfg.MODEL.BACKBONE.FREEZE_AT
    return [_read_stage(f"SOLVER.STAGES[{i}]", stage, frozen) for i, stage in enumerate(stages)]


def _read_stage(name: str, stage: Any, frozen: int) -> Stage:
    if not isinstance(stage, Mapping):
        raise IONError(f"{name} is {stage!r}; it must be a mapping, for instance {_EXAMPLE}.")
    faults = [f"the unknown key {k!r}" for k in stage if k not in (*_REQUIRED, *_OPTIONAL)]
    faults += [f"no {key}" for key in _REQUIRED if key not in stage]
    if faults:
        keys = f"needs {' and '.join(_REQUIRED)}, and may have {', '.join(_OPTIONAL)}"
        raise IONError(f"{name} has {faults[0]}; a stage {keys}.")
    values = {"END_LR": stage["BASE_LR"], "FREEZE_AT": frozen, "WARMUP_ITERS": 0, **stage}
    for key in ("BASE_LR", "END_LR"):
        if not isinstance(values[key], bool):
            with contextlib.suppress(TypeError, ValueError):
                values[key] = float(values[key])  # YAML reads 5e-3, without a point, as a string
    least = f"MODEL.BACKBONE.FREEZE_AT {frozen}, which holds in all stages,"
    rules = {
        "MAX_ITER": COUNT,
        "BASE_LR": POSITIVE,
        "END_LR": POSITIVE,
        "FREEZE_AT": number(f"from {least} to 5", lambda n: max(frozen, 0) <= n <= 5, whole=True),
    }
    for key, rule in rules.items():
        check_value(f"{name}.{key}", values[key], rule)
    last = values["MAX_ITER"] - 1
    warmup = number(f"from 0 to {last}", lambda n: 0 <= n <= last, whole=True)
    check_value(f"{name}.WARMUP_ITERS", values["WARMUP_ITERS"], warmup)
    return Stage(**{key.lower(): value for key, value in values.items()})


def follow_stages(cfg: CfgNode) -> None:
    """Let ``SOLVER.MAX_ITER`` and ``BASE_LR`` follow ``SOLVER.STAGES``, if it has any, in place."""
    stages = read_stages(cfg)
    if stages:
        cfg.SOLVER.MAX_ITER = sum(stage.max_iter for stage in stages)
        cfg.SOLVER.BASE_LR = stages[0].base_lr


def check_overrides(cfg: CfgNode, keys: Sequence[str]) -> None:
    """Raise ``IONError`` for a key on the command line that the config's stages overrule."""
    overruled = [f"SOLVER.{name}" for name in _OVERRULED] if cfg.SOLVER.STAGES else []
    for key in keys:
        if key in overruled:
            raise IONError(
                f"{key} has no effect on a training in stages; change SOLVER.STAGES, or add "
                'SOLVER.STAGES "[]" for a training without.'
            )


def build_stage_scheduler(optimizer: Optimizer, stages: list[Stage], cfg: CfgNode) -> LRMultiplier:
    """Build the schedule of the learning rate over all stages, to be stepped once an iteration.

    The optimizer has the rates of the first stage's start; the config gives the kind of warm-up.
    """
    total = sum(stage.max_iter for stage in stages)
    multiplier = CompositeParamScheduler(
        [_stage_curve(stage, stages[0].base_lr, cfg) for stage in stages],
        lengths=[stage.max_iter / total for stage in stages],
        interval_scaling=["rescaled"] * len(stages),
    )
    return LRMultiplier(optimizer, multiplier=multiplier, max_iter=total)


def _stage_curve(stage: Stage, unit: float, cfg: CfgNode) -> ParamScheduler:
    """The rate over a stage, in units of the rate with which the optimizer was built."""
    curve = ExponentialParamScheduler(stage.base_lr / unit, stage.end_lr / stage.base_lr)
    if not stage.warmup_iters:
        return curve
    solver, length = cfg.SOLVER, stage.warmup_iters / stage.max_iter
    return WarmupParamScheduler(curve, solver.WARMUP_FACTOR, length, solver.WARMUP_METHOD)


def check_backbone(model: nn.Module, stages: list[Stage], frozen: int) -> None:
    """Raise ``IONError`` if a stage freezes more than ``frozen`` blocks and the backbone cannot."""
    backbone = _find_resting(model)
    for i, stage in enumerate(stages):
        told = f"SOLVER.STAGES[{i}].FREEZE_AT is {stage.freeze_at}, but this backbone"
        if stage.freeze_at != frozen and backbone is None:
            raise IONError(
                f"{told} cannot change during a run what it trains, only VGG and timm's can; "
                "leave FREEZE_AT out of the stages, so that MODEL.BACKBONE.FREEZE_AT "
                f"{frozen} holds for all."
            )
        if backbone is not None and stage.freeze_at > backbone.num_stages:
            raise IONError(
                f"{told} has {backbone.num_stages} stages; give at most {backbone.num_stages}, "
                "which freezes all."
            )


def rest_backbone(model: nn.Module, freeze_at: int, optimizer: Optimizer) -> bool:
    """Let the first blocks of the backbone rest, and train the others.

    The optimizer forgets gradient and momentum of parameters that rest, so that it neither moves
    them nor lets old momentum move them when they are trained again. The model may not be wrapped
    for distributed training. Returns whether this changed which parameters are trained.
    """
    before = [p.requires_grad for p in model.parameters()]
    backbone = _find_resting(model)
    if backbone is not None:
        backbone.rest_blocks(freeze_at)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if not parameter.requires_grad:
                parameter.grad = None
                optimizer.state.pop(parameter, None)
    return before != [p.requires_grad for p in model.parameters()]


def _find_resting(model: nn.Module) -> Any:
    return next((m for m in model.modules() if hasattr(m, "rest_blocks")), None)


class EnterStages(HookBase):
    """Calls the trainer's ``enter_stage`` when a stage begins, or is resumed in its middle."""

    def __init__(self, stages: list[Stage]) -> None:
        self._stages = stages
        self._ends = list(accumulate(stage.max_iter for stage in stages))
        self._current = -1

    def before_step(self) -> None:
        """Enter a stage, if the iteration is the first one in it."""
        index = next(i for i, end in enumerate(self._ends) if self.trainer.iter < end)
        if index != self._current:
            self._current, stage = index, self._stages[index]
            logger.info("Stage %d of %d: %s", index + 1, len(self._stages), stage)
            self.trainer.enter_stage(stage)
