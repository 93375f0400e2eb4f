"""Class scores and box deltas, with losses that weigh all images of a batch alike."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from detectron2.modeling.roi_heads.fast_rcnn import _log_classification_stats
from detectron2.structures import Instances
from detectron2.utils.events import EventStorage
from torch import Tensor

from ...value_rules import POSITIVE, check_value

# What Detectron2 draws the weights of the class scores with, as Fast R-CNN does.
_DETECTRON2_STD = 0.01


class ImageMeanOutputLayers(FastRCNNOutputLayers):
    """Detectron2's Fast R-CNN output layers; each loss is the mean over the images of the batch.

    Detectron2 divides by the number of ROIs of the batch, so that an image with fewer counts less.
    The paper accumulates the gradients of single images (sec. 4.1): each counts the same.
    """

    @configurable
    def __init__(
        self, input_shape: ShapeSpec, *, cls_init_std: float = _DETECTRON2_STD, **kwargs: Any
    ) -> None:
        """
        Args:
            input_shape: of the box head's output.
            cls_init_std: standard deviation of the class scores' weights at the start. A small one
                leaves hardly any gradient to a feature that alone separates two classes. IONError
                if it is not above 0.
            kwargs: the arguments of Detectron2's ``FastRCNNOutputLayers``.
        """
        super().__init__(input_shape, **kwargs)
        check_value("MODEL.ROI_BOX_HEAD.CLS_INIT_STD", cls_init_std, POSITIVE)
        with torch.no_grad():
            # Stretched, not drawn anew: the random numbers stay those of Detectron2.
            self.cls_score.weight.mul_(cls_init_std / _DETECTRON2_STD)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        ret = super().from_config(cfg, input_shape)
        ret["cls_init_std"] = cfg.MODEL.ROI_BOX_HEAD.CLS_INIT_STD
        return ret

    def losses(
        self, predictions: tuple[Tensor, Tensor], proposals: list[Instances]
    ) -> dict[str, Tensor]:
        """Compute "loss_cls" and "loss_box_reg".

        Args:
            predictions: scores (M, K+1) and deltas (M, K*4) or (M, 4).
            proposals: for each image its sampled ROIs with ``gt_classes`` and, where the image has
                ground truth, ``gt_boxes``; M in all.
        """
        counts = [len(p) for p in proposals]
        image_losses = super().losses
        if len(set(counts)) <= 1:
            return image_losses(predictions, proposals)
        parts = zip(*(prediction.split(counts) for prediction in predictions))
        with EventStorage():  # what Detectron2 logs there is of one image
            losses = [image_losses(part, [p]) for part, p in zip(parts, proposals)]
        _log_classification_stats(predictions[0], torch.cat([p.gt_classes for p in proposals]))
        return {name: torch.stack([x[name] for x in losses]).mean() for name in losses[0]}
