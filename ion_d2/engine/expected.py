"""The comparison of an evaluation with ``TEST.EXPECTED_RESULTS``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode
from detectron2.evaluation import verify_results
from detectron2.utils import comm

from ..errors import IONError


def check_expected(cfg: CfgNode) -> None:
    """Raise ``IONError`` where the figures to expect would be of one of several test sets."""
    if cfg.TEST.EXPECTED_RESULTS and (sets := len(cfg.DATASETS.TEST)) != 1:
        raise IONError(
            f"TEST.EXPECTED_RESULTS is for one test set, but DATASETS.TEST names {sets}; name one, "
            "or set it to []."
        )


def verify(cfg: CfgNode, results: Mapping[str, Any]) -> None:
    """Compare results in the main process; as in Detectron2, others end it with status 1.

    Raises:
        IONError: a task is expected that the evaluation does not have.
    """
    if not comm.is_main_process():
        return
    check_expected(cfg)
    for task, *_ in cfg.TEST.EXPECTED_RESULTS:
        if task not in results:
            raise IONError(
                f"TEST.EXPECTED_RESULTS names the task {task!r}, which the evaluation does not "
                f"give; choose one of {', '.join(results) or 'none'}."
            )
    verify_results(cfg, results)
