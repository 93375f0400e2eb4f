"""Making a config and its datasets agree before a run."""

from __future__ import annotations

from detectron2.config import CfgNode

from ..data.catalog import check_num_classes, ensure_registered
from ..data.proposals import check_proposals
from ..data.readable import check_headers
from ..data.run_images import load_dicts, test_resize
from ..data.task_labels import check_test_labels
from ..errors import IONError
from ..evaluation import build_evaluators
from ..modeling.unread_settings import check_switches


def settle_data(cfg: CfgNode, *, train: bool) -> None:
    """Register the datasets of a run, make the config's numbers of classes theirs, check files.

    A training looks at its test data as well, so that a fault there is not told after hours.

    Args:
        cfg: the config, changed in place and frozen.
        train: whether the run trains; otherwise it needs ``DATASETS.TEST`` alone.

    Raises:
        IONError: a dataset or proposal file is missing or broken, or contradicts the config.
    """
    cfg.defrost()
    names = (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST) if train else cfg.DATASETS.TEST
    ensure_registered(names)
    check_num_classes(cfg, names)
    check_proposals(cfg, train=train)
    cfg.freeze()
    check_switches(cfg)
    _check_test_names(cfg)
    for name in cfg.DATASETS.TEST:
        dicts = load_dicts(name)
        check_test_labels(cfg, name, dicts)
        if train:
            check_headers(dicts, test_resize(cfg), skip_unreadable=cfg.INPUT.SKIP_UNREADABLE)
            build_evaluators(cfg, name)  # they look at their data


def _check_test_names(cfg: CfgNode) -> None:
    names = list(cfg.DATASETS.TEST)
    for name in names:
        if names.count(name) > 1:
            raise IONError(f"DATASETS.TEST names '{name}' more than once; keep one of it.")
