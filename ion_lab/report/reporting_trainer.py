"""The trainer of train_net.py: ION's, with a report at the end."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import nn

from ion_d2.engine.steps import unwrap_distributed
from ion_d2.engine.trainer import IONTrainer
from ion_d2.modeling.trainer_settings import PROGRAM_KEYS

from .run_report import write_run_report


class ReportingTrainer(IONTrainer):
    """Also writes ``report.html`` into ``OUTPUT_DIR`` after the training, if ``TEST.REPORT``."""

    honored_settings = (*IONTrainer.honored_settings, *PROGRAM_KEYS)

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
