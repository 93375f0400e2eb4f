"""Class scores and box deltas, with losses that weigh all images of a batch alike."""

from __future__ import annotations

import torch
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from detectron2.structures import Instances
from torch import Tensor


class ImageMeanOutputLayers(FastRCNNOutputLayers):
    """Detectron2's Fast R-CNN output layers; each loss is the mean over the images of the batch.

    Detectron2 divides by the number of ROIs of the whole batch, so that an image from which fewer
    were sampled counts less. The paper accumulates the gradients of single images (sec. 4.1): each
    counts the same. With equally many ROIs from every image the two are one.
    """

    def losses(
        self, predictions: tuple[Tensor, Tensor], proposals: list[Instances]
    ) -> dict[str, Tensor]:
        """
        Args:
            predictions: scores (M, K+1) and deltas (M, K*4) or (M, 4).
            proposals: for each image its sampled ROIs with ``gt_classes`` and, where the image has
                ground truth, ``gt_boxes``; M in all.

        Returns:
            "loss_cls" and "loss_box_reg", scalars.
        """
        counts = [len(p) for p in proposals]
        image_losses = super().losses
        if len(set(counts)) <= 1:
            return image_losses(predictions, proposals)
        parts = zip(*(prediction.split(counts) for prediction in predictions))
        losses = [image_losses(part, [p]) for part, p in zip(parts, proposals)]
        return {name: torch.stack([x[name] for x in losses]).mean() for name in losses[0]}
