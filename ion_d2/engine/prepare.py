"""Making a config and its datasets agree before a run."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.config import CfgNode

from ..data.catalog import check_num_classes, ensure_registered


def settle_data(cfg: CfgNode, names: Sequence[str]) -> None:
    """Register datasets, and make the config's numbers of classes theirs.

    Args:
        cfg: the config, changed in place and frozen.
        names: the datasets.

    Raises:
        IONError: a dataset is missing or broken, or contradicts the config.
    """
    cfg.defrost()
    ensure_registered(names)
    check_num_classes(cfg, names)
    cfg.freeze()
