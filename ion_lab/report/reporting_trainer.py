"""The trainer of train_net.py: ION's, with curves on the way and a report at the end."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import nn

from ion_d2.engine.steps import unwrap_distributed
from ion_d2.engine.trainer import IONTrainer
from ion_d2.modeling.trainer_settings import PROGRAM_KEYS

from .run_report import FILE_NAME, write_run_report
from .training_files import LOSSES, VALIDATION, RefreshTrainingFiles


class ReportingTrainer(IONTrainer):
    """Also writes ``losses.png``, ``validation.md`` and, if ``TEST.REPORT``, ``report.html``."""

    trusted_files = (*IONTrainer.trusted_files, FILE_NAME, LOSSES, VALIDATION)
    honored_settings = (*IONTrainer.honored_settings, *PROGRAM_KEYS)

    def build_hooks(self) -> list[HookBase | None]:
        """See :meth:`IONTrainer.build_hooks`; the curves are drawn once the metrics are written."""
        # Before the last hook, which gives signals back to the program.
        *hooks, last = super().build_hooks()
        if comm.is_main_process():
            hooks.append(RefreshTrainingFiles(self.cfg.OUTPUT_DIR, self.cfg.TEST.EVAL_PERIOD))
        return [*hooks, last]

    def train(self) -> Any:
        """See :meth:`IONTrainer.train`."""
        results = super().train()
        self.report(self.cfg, self.evaluated_model)
        return results

    @staticmethod
    def report(cfg: CfgNode, model: nn.Module) -> None:
        """Write the report of the evaluated model, if ``TEST.REPORT``, in the main process."""
        if cfg.TEST.REPORT and comm.is_main_process():
            write_run_report(cfg, unwrap_distributed(model))
