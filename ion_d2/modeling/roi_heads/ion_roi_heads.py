"""ION's ROI heads: skip pooling, fc6 and fc7, class scores and box deltas (paper Fig. 1)."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY, StandardROIHeads
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor

from ...value_rules import COUNT, check_value, number
from .box_predictor import ImageMeanOutputLayers
from .box_refinement import Predictions, refine_and_vote, run_rounds
from .flip_averaging import average_with_mirrored, mirror_boxes
from .skip_pooling_heads import SkipPooling

_VOTE_IOU = number(
    "above 0 and at most 1 (TEST.BOX_REFINEMENT.VOTE False turns the vote off)",
    lambda value: 0 < value <= 1,
)


@ROI_HEADS_REGISTRY.register()
class IONROIHeads(SkipPooling, StandardROIHeads):
    """Detectron2's standard ROI heads with skip pooling over any list of features.

    At test time boxes may pass through the head more than once and vote (sec. 4.2), and predictions
    may be averaged with those of the mirrored image.
    """

    @configurable
    def __init__(self, *, rounds: int = 1, vote_iou: float | None = None, **kwargs: Any) -> None:
        """As Detectron2's ``StandardROIHeads``, with the following for test time.

        Args:
            rounds: passes through the box head; IONError for less than 1.
            vote_iou: overlap in (0, 1], or an IONError, from which a box votes for a kept one; None
                for no vote.
        """
        super().__init__(**kwargs)
        check_value("TEST.BOX_REFINEMENT.ROUNDS", rounds, COUNT)
        if vote_iou is not None:
            check_value("TEST.BOX_REFINEMENT.VOTE_IOU", vote_iou, _VOTE_IOU)
        self.rounds = rounds
        self.vote_iou = vote_iou

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        ret = super().from_config(cfg, input_shape)
        refinement = cfg.TEST.BOX_REFINEMENT
        if refinement.ENABLED:
            ret["rounds"] = refinement.ROUNDS
            ret["vote_iou"] = refinement.VOTE_IOU if refinement.VOTE else None
        return ret

    @classmethod
    def _init_box_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        ret = super()._init_box_head(cfg, input_shape)
        # Drawn anew beside Detectron2's, on whose random numbers every seeded training depends.
        ret["box_predictor"] = ImageMeanOutputLayers(cfg, ret["box_head"].output_shape)
        return ret

    def forward(
        self,
        images: ImageList,
        features: dict[str, Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None = None,
        mirrored: dict[str, Tensor] | None = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """Find objects as Detectron2's heads do, or compute their losses.

        ``mirrored`` are features of the mirrored images, with whose predictions those from
        ``features`` are averaged; at test time only.
        """
        if mirrored is None:
            return super().forward(images, features, proposals, targets)
        detections = self._detect(features, proposals, mirrored)
        return self.forward_with_given_boxes(features, detections), {}

    def _forward_box(
        self, features: dict[str, Tensor], proposals: list[Instances]
    ) -> dict[str, Tensor] | list[Instances]:
        if self.training or (self.rounds == 1 and self.vote_iou is None):
            return super()._forward_box(features, proposals)
        return self._detect(features, proposals)

    def _detect(
        self,
        features: dict[str, Tensor],
        proposals: list[Instances],
        mirrored: dict[str, Tensor] | None = None,
    ) -> list[Instances]:
        sizes = [p.image_size for p in proposals]

        def predict(boxes: list[Boxes]) -> Predictions:
            predictions = self._predict(features, boxes, sizes)
            if mirrored is None:
                return predictions
            others = self._predict(mirrored, mirror_boxes(boxes, sizes), sizes)
            return average_with_mirrored(predictions, others, sizes)

        test = self.box_predictor
        limits = (test.test_score_thresh, test.test_nms_thresh, test.test_topk_per_image)
        found = zip(*run_rounds(proposals, predict, self.rounds), sizes)
        return [refine_and_vote(*each, *limits, self.vote_iou) for each in found]

    def _predict(
        self, features: dict[str, Tensor], boxes: list[Boxes], sizes: list[tuple[int, int]]
    ) -> Predictions:
        """Regress and score boxes: (R, K*4) and (R, K+1) for each image."""
        rois = [Instances(size, proposal_boxes=b) for size, b in zip(sizes, boxes)]
        pooled = self.box_pooler([features[name] for name in self.box_in_features], boxes)
        predictions = self.box_predictor(self.box_head(pooled))
        return (
            self.box_predictor.predict_boxes(predictions, rois),
            self.box_predictor.predict_probs(predictions, rois),
        )
