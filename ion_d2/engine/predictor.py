"""A trained model applied to single pictures."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from PIL import Image
from torch import nn

from ..data.run_images import test_resize
from ..errors import IONError
from .augmented_test import with_augmentation
from .checkpoint import IONCheckpointer
from .class_names import classes_of
from .fit_config import check_detects
from .setup import build_model

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
    """Runs a detector on pictures, resized as for evaluation."""

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
        """Build the model of a config and load MODEL.WEIGHTS into it; see :func:`load_trained`.

        Raises:
            IONError: the model has no proposals of its own, or as :func:`load_trained`.
        """
        if cfg.MODEL.PROPOSAL_GENERATOR.NAME == "PrecomputedProposals":
            raise IONError(
                "MODEL.PROPOSAL_GENERATOR.NAME is PrecomputedProposals, with which a model finds "
                "objects only in datasets that have proposal files; evaluate it with train_net.py "
                "--eval-only, or train one with MODEL.PROPOSAL_GENERATOR.NAME RPN."
            )
        if cfg.MODEL.LOAD_PROPOSALS:
            logger.warning(
                "MODEL.LOAD_PROPOSALS is True, but pictures come without the boxes of proposal "
                "files: the model detects from its RPN's alone, and may find other objects than "
                "evaluated."
            )
        model = load_trained(cfg, class_names)
        return cls(cfg, model, classes_of(model))

    def __call__(self, image: np.ndarray) -> Prediction:
        """Detect the objects of one picture, as :meth:`predict_batch` does."""
        return self.predict_batch([image])[0]

    @torch.no_grad()
    def predict_batch(self, images: Sequence[np.ndarray]) -> list[Prediction]:
        """Detect the objects of several pictures in one pass of the model.

        Pictures of one size find what each finds alone, up to rounding. Those of different sizes
        are padded to a common one, which convolutions see.

        Args:
            images: each (H, W, 3) uint8, BGR, or as :func:`as_picture` takes it.

        Returns:
            For each, on the CPU, "instances", with ``pred_boxes`` in pixels of the picture,
            ``scores`` and ``pred_classes``, and "sem_seg" (num_classes, H, W) if the model
            predicts it (with TEST.AUG.ENABLED it does not).

        Raises:
            IONError: one is no picture, or too narrow for INPUT.MAX_SIZE_TEST.
        """
        inputs = [
            {"image": self.preprocess(x), "height": x.shape[0], "width": x.shape[1]} for x in images
        ]
        if not inputs:  # of which Detectron2 makes no batch
            return []
        return [
            # A panoptic model's third part is no tensor.
            Prediction({key: x.to("cpu") for key, x in found.items() if key != "panoptic_seg"})
            for found in self.model(inputs)
        ]

    def preprocess(self, image: np.ndarray) -> torch.Tensor:
        """Turn a picture into the model's input: (C, H', W') uint8, resized, in INPUT.FORMAT."""
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


def load_trained(cfg: CfgNode, class_names: Sequence[str] | None = None) -> nn.Module:
    """Build the model of a config and load MODEL.WEIGHTS into it.

    Without ``class_names``, the weights' own names are taken, if they have any.

    Raises:
        IONError: no weights are given, they cannot be loaded, or they are for other classes.
    """
    check_detects(cfg)
    if not cfg.MODEL.WEIGHTS:
        raise IONError("MODEL.WEIGHTS is empty; add MODEL.WEIGHTS path/to/model_final.pth.")
    model = build_model(cfg)
    IONCheckpointer(model, classes=class_names).load_complete(cfg.MODEL.WEIGHTS)
    return model


def as_picture(image: Any, image_format: str) -> np.ndarray:
    """Check a picture, and give it the channels of a model.

    Args:
        image: (H, W, 3) uint8, BGR; (H, W, 4) with an alpha channel, which is dropped; or gray,
            (H, W) or (H, W, 1), which a model of three channels gets three times.
        image_format: ``INPUT.FORMAT``: "BGR", "RGB" or "L".

    Returns:
        (H, W, 3) uint8 in the order of ``image_format``, or (H, W, 1) for "L".

    Raises:
        IONError: it is no such array.
    """
    if fault := _fault(image):
        raise IONError(
            f"The picture is {fault}; give a NumPy array (H, W, 3) of type uint8, BGR, as "
            "cv2.imread does, or (H, W) in gray."
        )
    if image.ndim == 2:
        image = image[:, :, None]
    if image.shape[2] == 1:
        return image if image_format == "L" else np.repeat(image, 3, axis=2)
    rgb = image[:, :, 2::-1]  # without alpha
    if image_format == "L":
        # As pictures in color are read for training such a model.
        return np.asarray(Image.fromarray(np.ascontiguousarray(rgb)).convert("L"))[:, :, None]
    return rgb if image_format == "RGB" else image[:, :, :3]


def _fault(image: Any) -> str:
    if image is None:
        return "None, as cv2.imread gives for a file that it cannot read (check its path)"
    if not isinstance(image, np.ndarray):
        told = f" {image!r}" if isinstance(image, str) else ""
        return f"a {type(image).__name__}{told}, not an array"
    if image.dtype != np.uint8:
        return f"an array of type {image.dtype}, not uint8 with values from 0 to 255"
    gray = image.ndim == 2
    if not (gray or (image.ndim == 3 and image.shape[2] in (1, 3, 4))) or 0 in image.shape:
        return f"an array of shape {image.shape}"
    return ""
