"""Making a config and its datasets agree before a run."""

from __future__ import annotations

from detectron2.config import CfgNode

from ..data.catalog import check_num_classes, ensure_registered
from ..data.proposals import check_proposals


def settle_data(cfg: CfgNode, *, train: bool) -> None:
    """Register the datasets of a run, make the config's numbers of classes theirs, check proposals.

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
