"""Settings that only some trainers honor, refused under the others."""

from __future__ import annotations

import inspect
import sys
import traceback
from typing import Any

from detectron2.config import CfgNode
from torch import nn

from ..clipping import clip_as_configured, settle_clipping
from ..config import default_of
from ..errors import IONError
from ..value_rules import value_of
from .backbone.batch_renorm import BatchRenorm2d
from .unread_settings import check_switches

# Keys of ion_d2.config, and of Detectron2 with values of ours, that neither the model nor the
# evaluators honor by themselves: the trainer must, or its data loading.
TRAINER_KEYS = (
    *("SOLVER.STAGES", "SOLVER.IMS_PER_PASS", "SOLVER.EMA_DECAY", "SOLVER.DETERMINISTIC"),
    *("SOLVER.SKIP_NON_FINITE", "SOLVER.AMP.PRECISION"),
    *("TEST.BEST_METRIC", "TEST.PATIENCE", "TEST.LOSS"),
    *("INPUT.SKIP_UNREADABLE", "DATASETS.SEM_SEG_DIRS", "WANDB_PROJECT", "DISTRIBUTED.TIMEOUT"),
)
# What only train_net.py does, with the trainer of ion_lab.
PROGRAM_KEYS = ("TEST.REPORT",)
# What Detectron2's trainers honor as well, but not with batch renormalization.
PRECISE_BN = "TEST.PRECISE_BN.ENABLED"


class BuiltFromConfig(nn.Module):
    """Base of the parts that ION registers: no trainer of Detectron2's may ignore their config.

    Such a trainer tells the model nothing of itself, but puts it into training mode when it is
    constructed. The part then refuses whatever the config asks beyond the trainer's attribute
    ``honored_settings`` (a collection of config keys). Prediction, evaluation and a training mode
    that anybody else sets are free.
    """

    _config = None  # without a type, which TorchScript would try to understand

    def __new__(cls, *args: Any, **kwargs: Any) -> BuiltFromConfig:
        """Remember the config, if the part is built from one."""
        part = super().__new__(cls)
        cfg = kwargs.get("cfg", args[0] if args else None)
        return part.remember(cfg) if isinstance(cfg, CfgNode) else part

    def remember(self, cfg: CfgNode) -> Any:
        """Remember the full config from which a function builds this part; returns the part.

        An old spelling of gradient clipping is replaced in place.

        Raises:
            IONError: the model that the config describes would ignore a part of it.
        """
        check_switches(cfg)
        settle_clipping(cfg)  # Detectron2's trainers build their optimizer after the model
        self._config = cfg
        return self

    def train(self, mode: bool = True) -> Any:
        """Set training or evaluation mode, unless that is for a trainer that ignores settings.

        Raises:
            IONError: the trainer would ignore some; the message names the keys.
        """
        if mode and self._config is not None:
            clip_as_configured(self.parameters(), self._config)  # also in a loop of one's own
            if trainers := _trainers_under_construction():
                _check_honored(self, self._config, trainers)
        return super().train(mode)


def _trainers_under_construction() -> list[Any]:
    """Detectron2's trainers whose constructors this call comes from, the innermost first."""
    engine = sys.modules.get("detectron2.engine.train_loop")
    if engine is None:
        return []
    callers = [frame for frame, _ in traceback.walk_stack(inspect.currentframe())]
    made = [f.f_locals.get("self") for f in callers if f.f_code.co_name == "__init__"]
    return [it for it in made if isinstance(it, engine.TrainerBase)]


def _check_honored(part: nn.Module, cfg: CfgNode, trainers: list[Any]) -> None:
    honored = {key for it in trainers for key in getattr(it, "honored_settings", ())}
    asked = {key: off for key, off in _asked(cfg).items() if key not in honored}
    trainer = type(trainers[-1]).__name__
    if asked:
        ways = " and ".join(f"{key} to {off!r}" for key, off in asked.items())
        alone = any(key in asked for key in PROGRAM_KEYS)
        able = "train_net.py" if alone else "train_net.py or ion_d2.build_trainer"
        raise IONError(
            f"{trainer} would ignore {', '.join(asked)}: train with {able}, or set {ways}."
        )
    has_own = any(isinstance(module, BatchRenorm2d) for module in part.modules())
    if has_own and value_of(cfg, PRECISE_BN) and PRECISE_BN not in honored:
        raise IONError(
            f"{trainer} would measure the statistics of batch renormalization (BRN), which ruins "
            f"the model: set {PRECISE_BN} to False, or train with train_net.py or "
            "ion_d2.build_trainer, which measure other normalizations alone."
        )


def _asked(cfg: CfgNode) -> dict[str, Any]:
    """The keys that ask something of the trainer, and the values that would ask nothing."""
    defaults = {key: default_of(key) for key in (*TRAINER_KEYS, *PROGRAM_KEYS)}
    # An older config may lack a key.
    return {
        key: off for key, off in defaults.items() if value_of(cfg, key) not in (off, None, [], ())
    }
