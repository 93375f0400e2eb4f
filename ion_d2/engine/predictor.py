"""A trained model applied to single pictures, and the names of its classes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from torch import nn

from ion_d2.data.catalog import class_names
from ion_d2.data.class_file import read_class_file
from ion_d2.data.run_images import test_resize
from ion_d2.engine.augmented_test import with_augmentation
from ion_d2.engine.checkpoint import IONCheckpointer
from ion_d2.engine.class_names import (
    check_classes,
    classes_of,
    difference,
    listed,
    read_class_names,
)
from ion_d2.engine.picture_array import as_picture
from ion_d2.engine.setup import build_model
from ion_d2.errors import IONError

__all__ = ["IONPredictor", "Prediction", "find_class_names", "settle_classes"]

logger = logging.getLogger(__name__)


class Prediction(dict):
    """What Detectron2's predictor gives: "instances", and "sem_seg" where the model has it.

    The fields of the instances can be read from it directly as well, as ``prediction.scores``.
    """

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "instances" not in self:
            raise AttributeError(name)
        return getattr(self["instances"], name)


class IONPredictor:
    """Runs a detector on one picture at a time, resized as for evaluation."""

    def __init__(
        self, cfg: CfgNode, model: nn.Module, class_names: Sequence[str] | None = None
    ) -> None:
        """
        Args:
            cfg: the model's config; INPUT tells the size and the order of the channels, TEST.AUG
                whether to merge the detections of several sizes and mirrored copies.
            model: the detector, on its device and with its weights; put into evaluation mode.
            class_names: a name for every class, if known.
        """
        self.class_names = None if class_names is None else list(class_names)
        self.model = (with_augmentation(cfg, model) if cfg.TEST.AUG.ENABLED else model).eval()
        self._resize = test_resize(cfg)
        self._format = cfg.INPUT.FORMAT

    @classmethod
    def from_config(cls, cfg: CfgNode, class_names: Sequence[str] | None = None) -> IONPredictor:
        """Build the model of a config and load MODEL.WEIGHTS into it.

        Args:
            cfg: the full config.
            class_names: a name for every class; None takes those of the weights, if they tell.

        Raises:
            IONError: no weights are given, they cannot be loaded, or they are for other classes.
        """
        if not cfg.MODEL.WEIGHTS:
            raise IONError(
                "MODEL.WEIGHTS is empty, but detecting needs a trained model; add MODEL.WEIGHTS "
                "path/to/model_final.pth to the command."
            )
        model = build_model(cfg)
        IONCheckpointer(model, classes=class_names).load_complete(cfg.MODEL.WEIGHTS)
        return cls(cfg, model, classes_of(model))

    @torch.no_grad()
    def __call__(self, image: np.ndarray) -> Prediction:
        """Detect the objects of a picture.

        Args:
            image: (H, W, 3) uint8, BGR, or gray; see :func:`~.picture_array.as_picture`.

        Returns:
            "instances", with ``pred_boxes`` in pixels of ``image``, ``scores`` and
            ``pred_classes``, and "sem_seg" (num_classes, H, W) if the model predicts it; on the
            CPU.

        Raises:
            IONError: see :meth:`preprocess`.
        """
        inputs = {"image": self.preprocess(image)}
        inputs["height"], inputs["width"] = image.shape[:2]
        return Prediction({key: x.to("cpu") for key, x in self.model([inputs])[0].items()})

    def preprocess(self, image: np.ndarray) -> torch.Tensor:
        """Make of a picture what the model is given.

        Args:
            image: see :meth:`__call__`.

        Returns:
            (C, H', W') uint8, resized and with its channels in the order of INPUT.FORMAT.

        Raises:
            IONError: it is no picture, or so narrow that nothing is left of it at the size of
                INPUT.MAX_SIZE_TEST.
        """
        image = np.ascontiguousarray(as_picture(image, self._format))
        transform = self._resize.get_transform(image)
        try:
            resized = transform.apply_image(image)
        except ValueError as error:  # Pillow's, of a side that would have no pixel
            raise IONError(
                f"A picture of {image.shape[1]}x{image.shape[0]} pixels is too narrow: nothing is "
                f"left of it at INPUT.MAX_SIZE_TEST {self._resize.max_size}; cut it into pieces."
            ) from error
        return torch.as_tensor(np.ascontiguousarray(resized.transpose(2, 0, 1)))


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
