"""A trained model applied to single pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from torch import nn

from ion_d2.data.run_images import test_resize
from ion_d2.engine.augmented_test import with_augmentation
from ion_d2.engine.checkpoint import IONCheckpointer
from ion_d2.engine.class_names import classes_of
from ion_d2.engine.picture_array import as_picture
from ion_d2.engine.setup import build_model
from ion_d2.errors import IONError

__all__ = ["IONPredictor", "Prediction"]


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
