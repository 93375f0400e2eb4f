"""The segmentation regularizer: per-pixel classes from the context feature (sec. 3.2, Fig. 2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn

from ..errors import IONError
from ..layers import l2_normalize
from ..layers.precision import keep_range
from ..value_rules import NOT_NEGATIVE, check_value, number
from .model_values import check_features
from .trainer_settings import BuiltFromConfig

_CLASSES = number(
    "above 1: that of the object classes plus 1 for the background", lambda v: v > 1, whole=True
)


@SEM_SEG_HEADS_REGISTRY.register()
class IONSegHead(BuiltFromConfig):
    """One deconvolution to image resolution, and a softmax loss over the labeled pixels.

    The kernel is twice the stride wide (32 for the context feature of VGG16). It starts as bilinear
    interpolation of Xavier-initialized class scores, by default at their full size.
    """

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        in_feature: str = "context",
        num_classes: int,
        ignore_value: int = 255,
        loss_weight: float = 1.0,
        normalize_input: bool = True,
        init_gain: float = 1.0,
    ) -> None:
        """
        Args:
            input_shape: of the backbone's features, of which ``in_feature`` is read.
            num_classes: background included (21 for VOC).
            ignore_value: label of the pixels that do not count.
            loss_weight: factor on the loss (paper: 1).
            normalize_input: first divide the feature of each cell by its root mean square.
            init_gain: factor on the class scores' weights at the start; 0, as in FCN, makes all
                classes equally likely.

        Raises:
            IONError: there is no such feature, fewer than 2 classes, or a negative gain.
        """
        super().__init__()
        check_value("MODEL.SEM_SEG_HEAD.INIT_GAIN", init_gain, NOT_NEGATIVE)
        check_features("MODEL.SEM_SEG_HEAD.IN_FEATURES", [in_feature], input_shape)
        check_value("MODEL.SEM_SEG_HEAD.NUM_CLASSES", num_classes, _CLASSES)
        shape = input_shape[in_feature]
        self.in_feature = in_feature
        self.ignore_value = ignore_value
        self.loss_weight = loss_weight
        self.normalize_input = normalize_input
        kernel, padding = 2 * shape.stride - shape.stride % 2, shape.stride // 2
        self.deconv = nn.ConvTranspose2d(
            shape.channels, num_classes, kernel, shape.stride, padding=padding
        )
        _init_bilinear(self.deconv, init_gain)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        head = cfg.MODEL.SEM_SEG_HEAD
        if len(head.IN_FEATURES) != 1:
            raise IONError(
                f"MODEL.SEM_SEG_HEAD.IN_FEATURES is {head.IN_FEATURES}; IONSegHead takes one "
                "feature, for instance ['context']."
            )
        return {
            "input_shape": input_shape,
            "in_feature": head.IN_FEATURES[0],
            "num_classes": head.NUM_CLASSES,
            "ignore_value": head.IGNORE_VALUE,
            "loss_weight": head.LOSS_WEIGHT,
            "normalize_input": head.NORMALIZE_INPUT,
            "init_gain": head.INIT_GAIN,
        }

    def forward(
        self, features: dict[str, Tensor], targets: Tensor | None = None
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Segment, as the heads of Detectron2's registry do.

        Returns:
            In training, None and the :meth:`losses`. Otherwise (N, num_classes, H, W) logits and an
            empty dict; H and W are the images' where the features know them
            (:class:`ImageFeatures`), else whole cells times the stride.
        """
        logits = self.layers(features)
        if self.training:
            assert targets is not None
            return None, self.losses(logits, targets)
        size = getattr(features, "image_size", None)
        return (logits if size is None else _fit(logits, size)), {}

    def layers(self, features: dict[str, Tensor]) -> Tensor:
        """Class logits of every pixel, (N, num_classes, rows * stride, columns * stride)."""
        x = features[self.in_feature]
        if self.normalize_input:
            x = l2_normalize(x, "position") * math.sqrt(x.shape[1])
        with keep_range(x):
            return self.deconv(x)

    def losses(self, predictions: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The softmax loss: the mean over an image's labeled pixels, then over the images.

        An image without labels counts as 0, so the loss does not depend on how a batch is split.

        Args:
            predictions: what :meth:`layers` returns.
            targets: (N, H, W) integer labels, ``ignore_value`` where there is none.

        Returns:
            ``{"loss_sem_seg": scalar}``; without any label 0, with zero gradients and not none.

        Raises:
            IONError: a label is out of range. Labels on a GPU are not checked, to not stall it.
        """
        if targets.device.type == "cpu":
            self.check_labels(targets)
        logits = _fit(predictions, (targets.shape[-2], targets.shape[-1])).float()
        pixels = F.cross_entropy(logits, targets, ignore_index=self.ignore_value, reduction="none")
        labeled = (targets != self.ignore_value).sum(dim=(1, 2)).clamp(min=1)
        images = pixels.sum(dim=(1, 2)) / labeled
        return {"loss_sem_seg": images.mean() * self.loss_weight}

    def check_labels(self, labels: Tensor) -> None:
        """Raise an IONError if a label is neither a class index nor ``ignore_value``."""
        count = self.deconv.out_channels
        bad = labels[((labels < 0) | (labels >= count)) & (labels != self.ignore_value)]
        if bad.numel():
            raise IONError(
                f"A segmentation label is {int(bad[0])}, but MODEL.SEM_SEG_HEAD.NUM_CLASSES is "
                f"{count} (background included) and IGNORE_VALUE {self.ignore_value}; correct "
                "these, or the label maps (palette files: see docs/PLUG_IN.md)."
            )


def _init_bilinear(deconv: nn.ConvTranspose2d, gain: float) -> None:
    kernel, stride = deconv.kernel_size[0], deconv.stride[0]
    center = (kernel - 1) / 2
    line = 1 - (torch.arange(kernel) - center).abs() / stride
    scores = torch.empty(deconv.in_channels, deconv.out_channels)
    nn.init.xavier_uniform_(scores, gain)
    with torch.no_grad():
        deconv.weight.copy_(scores[:, :, None, None] * line[:, None] * line[None, :])
        deconv.bias.zero_()


def _fit(logits: Tensor, size: Sequence[int]) -> Tensor:
    """Crop to a size, or repeat the last row and column up to it.

    A backbone that drops incomplete cells leaves pixels at the right and the bottom without scores.
    """
    logits = logits[..., : size[0], : size[1]]
    missing = (0, size[1] - logits.shape[-1], 0, size[0] - logits.shape[-2])
    return F.pad(logits, missing, mode="replicate") if any(missing) else logits
