"""What a config must agree with before a run: its data, its weights, the machine and itself."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.utils import comm

from ..clipping import settle_clipping
from ..config import default_of
from ..data.catalog import class_names, ensure_registered
from ..data.class_file import read_class_file
from ..data.proposals import check_proposals
from ..data.readable import check_headers
from ..data.reading_on import skip_unreadable
from ..data.run_images import load_dicts, test_resize
from ..data.task_labels import check_test_labels
from ..errors import IONError
from ..evaluation import build_evaluators, check_metric
from ..modeling.unread_settings import check_switches
from ..value_rules import value_of
from .augmented_test import check_augmentation
from .best import check_best
from .class_names import check_classes, dataset_classes, difference, listed, read_class_names
from .expected import check_expected
from .ranges import check_ranges
from .setup import choose_device
from .stages import follow_stages

logger = logging.getLogger(__name__)


def settle_data(cfg: CfgNode, *, train: bool) -> None:
    """Register the datasets of a run, make the config's numbers of classes theirs, check files.

    The config is changed in place and frozen. A training looks at its test data as well, so that a
    fault there is not found hours later; other runs need ``DATASETS.TEST`` alone.

    Raises:
        IONError: a dataset or proposal file is missing or broken, or contradicts the config.
    """
    cfg.defrost()
    skip_unreadable(cfg.INPUT.SKIP_UNREADABLE)
    tests = cfg.DATASETS.TEST
    names = [*cfg.DATASETS.TRAIN, *tests] if train else list(tests)
    if not names and not train:
        raise IONError("DATASETS.TEST names no dataset; give one, as \"('voc:FOLDER:test',)\".")
    ensure_registered(names)
    check_num_classes(cfg, names)
    check_proposals(cfg, train=train)
    cfg.freeze()
    check_switches(cfg)
    if tests:
        check_detects(cfg)
    if repeated := [name for name in tests if tests.count(name) > 1]:
        raise IONError(f"DATASETS.TEST names '{repeated[0]}' more than once; keep one of it.")
    for name in tests:
        dicts = load_dicts(name)
        check_test_labels(cfg, name, dicts)
        if train:
            check_headers(dicts, test_resize(cfg), skip_unreadable=cfg.INPUT.SKIP_UNREADABLE)
            build_evaluators(cfg, name)  # which looks at the data as well


def check_detects(cfg: CfgNode) -> None:
    """Raise ``IONError`` for a model without detections, which evaluators and pictures want."""
    name = cfg.MODEL.META_ARCHITECTURE
    if name in ("ProposalNetwork", "SemanticSegmentor"):
        raise IONError(
            f"MODEL.META_ARCHITECTURE is {name!r}, which detects nothing that could be evaluated "
            "or shown here; use a detector, such as 'GeneralizedRCNN', or train with "
            "DATASETS.TEST '()'."
        )


def check_num_classes(cfg: CfgNode, names: Sequence[str] | None = None) -> None:
    """Make the config's numbers of classes agree with the data; a 0 becomes the data's number.

    MODEL.ROI_HEADS.NUM_CLASSES is K, or MODEL.RETINANET.NUM_CLASSES that of a RetinaNet, and
    MODEL.SEM_SEG_HEAD.NUM_CLASSES, where MODEL.SEG_REGULARIZER_ON, K + 1 (the background). The
    config, changed in place, must not be frozen. Without ``names``, the datasets are DATASETS.TRAIN
    and DATASETS.TEST.

    Raises:
        IONError: a number contradicts the data, or the datasets have different classes.
    """
    names = [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST] if names is None else names
    classes = class_names(names)
    told = f"dataset '{names[0]}' has {len(classes)} classes ({', '.join(classes)})"
    wanted = {classifier(cfg): (len(classes), told)}
    if cfg.MODEL.SEG_REGULARIZER_ON:
        wanted["SEM_SEG_HEAD"] = (len(classes) + 1, f"{told} and the background")
    for part, (number, reason) in wanted.items():
        node = cfg.MODEL[part]
        if node.NUM_CLASSES not in (0, number):
            raise IONError(
                f"MODEL.{part}.NUM_CLASSES is {node.NUM_CLASSES}, but {reason}; set it to "
                f"{number}, or to 0 to take it from the data."
            )
        node.NUM_CLASSES = number
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = len(classes)  # which the programs ask, whatever the model


def classifier(cfg: CfgNode) -> str:
    """The part of ``MODEL`` whose number of classes is that of the detector."""
    return "RETINANET" if cfg.MODEL.META_ARCHITECTURE == "RetinaNet" else "ROI_HEADS"


def settle_classes(
    cfg: CfgNode, classes_file: str | None = None, *, weights: str = ""
) -> list[str]:
    """Find a name for every class, and make the config's numbers of classes agree.

    The names are those of the file (see :func:`ion_d2.data.class_file.read_class_file`), of the
    weights, or of the first dataset of DATASETS.TEST or, without one, of DATASETS.TRAIN; "class 0",
    "class 1", ... (with a warning) where that is unknown here or has another number of classes than
    the model. Where MODEL.ROI_HEADS.NUM_CLASSES (of a RetinaNet, MODEL.RETINANET.NUM_CLASSES) is 0,
    any number fits. The config is changed in place and frozen.

    Raises:
        IONError: a file cannot be read or does not fit, or the number of classes is not known.
    """
    head, segmentation = cfg.MODEL[classifier(cfg)], cfg.MODEL.SEM_SEG_HEAD
    names = _find_names(cfg, classes_file, weights)
    if names is None:
        names = [f"class {label}" for label in range(head.NUM_CLASSES)]
    cfg.defrost()
    head.NUM_CLASSES = cfg.MODEL.ROI_HEADS.NUM_CLASSES = len(names)
    segmentation.NUM_CLASSES = segmentation.NUM_CLASSES or len(names) + 1
    cfg.freeze()
    return names


def _find_names(cfg: CfgNode, classes_file: str | None, weights: str) -> list[str] | None:
    key, expected = f"MODEL.{classifier(cfg)}.NUM_CLASSES", cfg.MODEL[classifier(cfg)].NUM_CLASSES
    trained = read_class_names(weights)
    if classes_file is not None:
        names = read_class_file(classes_file)
        check_classes(trained, names, weights)
        _check_number(key, expected, names, classes_file)
        return names
    found = _dataset_classes(cfg, logging.WARNING if trained is None else logging.DEBUG)
    if trained is not None:
        _check_number(key, expected, trained, weights)
        if differs := difference(trained, found):
            logger.warning("%s was trained on %s; its own names are used.", weights, differs)
        return trained
    if expected == 0 and found is None:
        raise IONError(
            f"{key} is 0 and no dataset at hand tells the number of classes; "
            "give --classes FILE, or the config.yaml in the folder of the training run."
        )
    if found is not None and expected not in (0, len(found)):
        told = "The dataset has %d classes and the model %d: --classes FILE would name its classes."
        logger.warning(told, len(found), expected)
        return None
    return found


def _check_number(key: str, expected: int, names: Sequence[str], source: str) -> None:
    if expected not in (0, len(names)):
        raise IONError(
            f"{source} names {len(names)} classes, but {key} is {expected}; "
            f"the classes there are {listed(names)}; set the key to 0 to take their number."
        )


def _dataset_classes(cfg: CfgNode, level: int) -> list[str] | None:
    """Ask the catalogs, which know Detectron2's own datasets also where their files are missing."""
    datasets = (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN)[:1]
    try:
        return class_names(datasets) if datasets else None
    except IONError as error:
        names = dataset_classes(datasets) if datasets[0] in DatasetCatalog.list() else None
        if names is None:
            logger.log(level, "The names of the classes are not known: %s", error)
        return names


def prepared(cfg: CfgNode) -> CfgNode:
    """A frozen copy with the length of the stages, a device that is here and a common seed."""
    cfg = cfg.clone()
    cfg.defrost()
    follow_stages(cfg)
    settle_clipping(cfg)
    cfg.MODEL.DEVICE = choose_device(cfg.MODEL.DEVICE)
    if cfg.SEED < 0:
        cfg.SEED = comm.shared_random_seed()
        logger.info("SEED is below 0; %d was drawn.", cfg.SEED)
    cfg.freeze()
    return cfg


def check_settings(cfg: CfgNode) -> None:
    """Raise ``IONError`` for settings that are out of range or contradict each other."""
    check_ranges(cfg)
    solver = cfg.SOLVER
    if reference := solver.REFERENCE_WORLD_SIZE:
        _check_batch(cfg, f"SOLVER.REFERENCE_WORLD_SIZE {reference}", reference)
        if solver.STAGES:
            raise IONError(
                "SOLVER.REFERENCE_WORLD_SIZE cannot scale SOLVER.STAGES; set it to 0 and adapt the "
                "stages to the number of processes."
            )
    check_best(cfg)
    check_expected(cfg)
    check_metric(cfg.TEST.VOC_METRIC)
    if cfg.TEST.AUG.ENABLED:
        check_augmentation(cfg)
    for key in ("TEST.LOSS", "TEST.AUG.ENABLED"):
        if value_of(cfg, key) and not cfg.DATASETS.TEST:
            raise IONError(f"{key} is True, but DATASETS.TEST names no dataset; name one.")
    if solver.AMP.PRECISION != default_of("SOLVER.AMP.PRECISION") and not solver.AMP.ENABLED:
        raise IONError(
            f"SOLVER.AMP.PRECISION is {solver.AMP.PRECISION!r}, but SOLVER.AMP.ENABLED is False, "
            "and so the training is in float32; set SOLVER.AMP.ENABLED to True."
        )
    half = solver.AMP.ENABLED and solver.AMP.PRECISION == "float16"
    if half and cfg.MODEL.DEVICE == "cpu":
        raise IONError(
            "SOLVER.AMP.ENABLED needs a GPU with SOLVER.AMP.PRECISION 'float16', but MODEL.DEVICE "
            "is 'cpu'; set SOLVER.AMP.PRECISION to 'bfloat16', or SOLVER.AMP.ENABLED to False."
        )


def _check_batch(cfg: CfgNode, divisor: str, number: int) -> None:
    batch = cfg.SOLVER.IMS_PER_BATCH
    if batch % number:
        raise IONError(f"SOLVER.IMS_PER_BATCH is {batch}; it must be a multiple of {divisor}.")


def check_data(cfg: CfgNode) -> None:
    """Raise ``IONError`` for settings of the batches that the training loader cannot honor."""
    if not cfg.DATASETS.TRAIN:
        raise IONError("DATASETS.TRAIN names no dataset to train on.")
    if (name := cfg.MODEL.META_ARCHITECTURE) in ("SemanticSegmentor", "PanopticFPN"):
        raise IONError(
            f"MODEL.META_ARCHITECTURE is {name!r}, which learns from label maps that ION's trainer "
            "loads for 'ION' alone; train it under Detectron2's (docs/PLUG_IN.md)."
        )
    if cfg.DATALOADER.SAMPLER_TRAIN != "TrainingSampler":
        sampler = f"DATALOADER.SAMPLER_TRAIN is {cfg.DATALOADER.SAMPLER_TRAIN!r}"
        raise IONError(f"{sampler}; ION's trainer has 'TrainingSampler' only.")
    processes = comm.get_world_size()
    _check_batch(cfg, f"the number of processes ({processes})", processes)
