"""The models of a study's rows, built before any is trained, so that a wrong value is told then."""

from __future__ import annotations

from collections.abc import Iterable

from ion_d2.engine.fit_config import check_num_classes, check_settings
from ion_d2.engine.setup import build_model, load_config
from ion_d2.errors import IONError
from ion_d2.modeling.unread_settings import check_switches
from ion_lab.study.runs import Run


def check_models(runs: Iterable[Run]) -> None:
    """Build the model of each row on each data, and of what it starts from, once.

    Raises:
        IONError: a setting is wrong; the message begins with the row and the data.
    """
    chosen: dict[tuple[str, str], Run] = {}
    for run in runs:
        for each in run.lineage:
            chosen.setdefault((each.row, each.data), each)
    for (row, data), run in chosen.items():
        try:
            _check_model(run)
        except IONError as error:
            raise IONError(f"{row}, {data}: {error}") from error


def _check_model(run: Run) -> None:
    cfg = load_config(str(run.config), run.overrides)
    check_settings(cfg)
    cfg.defrost()
    check_num_classes(cfg, [run.pictures.train, run.pictures.test])
    # Weights are read by the training, which alone needs a GPU's memory.
    cfg.MODEL.DEVICE, cfg.MODEL.TIMM.WEIGHTS = "cpu", ""
    cfg.freeze()
    check_switches(cfg)
    build_model(cfg)
