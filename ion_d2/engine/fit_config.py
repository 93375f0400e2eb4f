"""Making a config agree with its data, its weights and the machine, before a run."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils import comm

from ..clipping import settle_clipping
from ..data.catalog import class_names, ensure_registered
from ..data.class_file import read_class_file
from ..data.proposals import check_proposals
from ..data.readable import check_headers
from ..data.run_images import load_dicts, test_resize
from ..data.task_labels import check_test_labels
from ..errors import IONError
from ..evaluation import build_evaluators
from ..modeling.unread_settings import check_switches
from .class_names import check_classes, difference, listed, read_class_names
from .setup import choose_device
from .stages import follow_stages

logger = logging.getLogger(__name__)


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


def check_num_classes(cfg: CfgNode, names: Sequence[str] | None = None) -> None:
    """Make the config's numbers of classes agree with the data.

    MODEL.ROI_HEADS.NUM_CLASSES is K, and MODEL.SEM_SEG_HEAD.NUM_CLASSES, where
    MODEL.SEG_REGULARIZER_ON, K + 1 (the background). A 0 is replaced by the number from the data.

    Args:
        cfg: a config that is not frozen; changed in place.
        names: the datasets to look at; None means DATASETS.TRAIN and DATASETS.TEST.

    Raises:
        IONError: a number contradicts the data, or the datasets have different classes.
    """
    names = [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST] if names is None else list(names)
    classes = class_names(names)
    told = f"dataset '{names[0]}' has {len(classes)} classes ({', '.join(classes)})"
    model = cfg.MODEL
    _settle(model.ROI_HEADS, "MODEL.ROI_HEADS.NUM_CLASSES", len(classes), told)
    if model.SEG_REGULARIZER_ON:
        told += " and the background"
        _settle(model.SEM_SEG_HEAD, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", len(classes) + 1, told)


def _settle(node: CfgNode, key: str, number: int, told: str) -> None:
    if node.NUM_CLASSES not in (0, number):
        raise IONError(
            f"{key} is {node.NUM_CLASSES}, but {told}; set it to {number}, or to 0 to take it from "
            "the data."
        )
    node.NUM_CLASSES = number


def settle_classes(
    cfg: CfgNode, classes_file: str | None = None, *, weights: str = ""
) -> list[str]:
    """Find a name for every class, and make the config's numbers of classes agree.

    Args:
        cfg: the model's config, changed in place and frozen.
        classes_file: see :func:`find_class_names`.
        weights: see :func:`find_class_names`.

    Returns:
        The names; "class 0", "class 1", ... where they are not known.

    Raises:
        IONError: see :func:`find_class_names`.
    """
    names = find_class_names(cfg, classes_file, weights=weights)
    heads = cfg.MODEL.ROI_HEADS
    if names is None:
        names = [f"class {label}" for label in range(heads.NUM_CLASSES)]
    cfg.defrost()
    heads.NUM_CLASSES = len(names)
    if cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 0:
        cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = len(names) + 1
    cfg.freeze()
    return names


def find_class_names(
    cfg: CfgNode, classes_file: str | None = None, *, weights: str = ""
) -> list[str] | None:
    """Find the names of a model's classes.

    Args:
        cfg: the model's config; where MODEL.ROI_HEADS.NUM_CLASSES is 0, any number of names will
            do.
        classes_file: see :func:`ion_d2.data.class_file.read_class_file`; None asks the weights or,
            where these tell nothing, the first dataset of DATASETS.TEST or, without one, of
            DATASETS.TRAIN.
        weights: the checkpoint of the trained model; "" for a model that is not trained yet.

    Returns:
        The names, or None (with a warning) where the dataset is unknown here or has another number
        of classes than the model.

    Raises:
        IONError: a file cannot be read, or does not fit the model or the weights, or nothing tells
            how many classes the model has.
    """
    expected = cfg.MODEL.ROI_HEADS.NUM_CLASSES
    trained = read_class_names(weights)
    if classes_file is not None:
        names = read_class_file(classes_file)
        check_classes(trained, names, weights)
        _check_number(expected, names, classes_file)
        return names
    if trained is not None:
        _check_number(expected, trained, weights)
        _tell_other_data(cfg, trained, weights)
        return trained
    found = _dataset_classes(cfg)
    if expected == 0 and found is None:
        raise IONError(
            "MODEL.ROI_HEADS.NUM_CLASSES is 0 and no dataset at hand tells the number of classes; "
            "give --classes FILE, or the config.yaml in the folder of the training run."
        )
    if found is not None and expected not in (0, len(found)):
        logger.warning(
            "The dataset has %d classes and the model %d: classes appear as numbers; --classes "
            "FILE would name them.",
            len(found),
            expected,
        )
        return None
    return found


def _check_number(expected: int, names: Sequence[str], source: str) -> None:
    if expected not in (0, len(names)):
        raise IONError(
            f"{source} names {len(names)} classes, but MODEL.ROI_HEADS.NUM_CLASSES is {expected}; "
            f"the classes there are {listed(names)}; set the key to 0 to take their number."
        )


def _tell_other_data(cfg: CfgNode, trained: Sequence[str], weights: str) -> None:
    """Warn where the config's data has other classes than the weights, whose names count."""
    datasets = (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN)[:1]
    try:
        found = class_names(datasets) if datasets else None
    except IONError:  # data that is not here has no say
        return
    differs = difference(trained, found) if found else ""
    if differs:
        logger.warning("%s was trained on %s; its own names are used.", weights, differs)


def _dataset_classes(cfg: CfgNode) -> list[str] | None:
    """Ask the catalogs, which know Detectron2's own datasets also where their files are missing."""
    datasets = (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN)[:1]
    if not datasets:
        return None
    try:
        return class_names(datasets)
    except IONError as error:
        known = datasets[0] in DatasetCatalog.list()
        names = MetadataCatalog.get(datasets[0]).get("thing_classes") if known else None
        if names is None:
            logger.warning("The names of the classes are not known: %s", error)
        return names


def prepared(cfg: CfgNode) -> CfgNode:
    """Complete a config.

    Args:
        cfg: the full config; it is left as it is.

    Returns:
        A frozen copy with the length of its stages, the device that there is, and a seed that all
        processes share.
    """
    cfg = cfg.clone()
    cfg.defrost()
    follow_stages(cfg)
    settle_clipping(cfg)
    cfg.MODEL.DEVICE = choose_device(cfg.MODEL.DEVICE)
    if cfg.SEED < 0:
        cfg.SEED = comm.shared_random_seed()
    cfg.freeze()
    return cfg
