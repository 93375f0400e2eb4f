"""ION's ROI heads: skip pooling, fc6 and fc7, class scores and box deltas (paper Fig. 1)."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import (
    ROI_HEADS_REGISTRY,
    FastRCNNOutputLayers,
    StandardROIHeads,
    build_box_head,
)
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from ..errors import IONError
from .backbone import CONTEXT
from .box_refinement import refine_and_vote, run_rounds
from .poolers import SkipPooler


@ROI_HEADS_REGISTRY.register()
class IONROIHeads(StandardROIHeads):
    """Detectron2's standard ROI heads with a :class:`SkipPooler` over any list of features.

    At test time the boxes may go through the head more than once, with weighted voting (sec. 4.2).
    """

    @configurable
    def __init__(
        self, *, refinement_rounds: int | None = None, vote_iou: float = 0.5, **kwargs: Any
    ) -> None:
        """
        Args:
            refinement_rounds: passes through the box head at test time, followed by weighted
                voting; None for Detectron2's plain inference.
            vote_iou: overlap from which a box votes for a kept one.
            kwargs: the arguments of Detectron2's ``StandardROIHeads``.
        """
        super().__init__(**kwargs)
        self.refinement_rounds = refinement_rounds
        self.vote_iou = vote_iou

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Read ``MODEL.ROI_HEADS``, ``MODEL.ROI_BOX_HEAD``, ``MODEL.SKIP_POOLER`` and ``TEST``."""
        _check_features(cfg.MODEL.ROI_HEADS.IN_FEATURES, input_shape)
        ret = super().from_config(cfg, input_shape)
        refinement = cfg.TEST.BOX_REFINEMENT
        ret["refinement_rounds"] = refinement.ROUNDS if refinement.ENABLED else None
        ret["vote_iou"] = refinement.VOTE_IOU
        return ret

    @classmethod
    def _init_box_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        names = list(cfg.MODEL.ROI_HEADS.IN_FEATURES)
        pooler, bins = cls._init_box_pooler(cfg, names, input_shape)
        shape = ShapeSpec(channels=pooler.out_channels, height=bins, width=bins)
        box_head = build_box_head(cfg, shape)
        return {
            "box_in_features": names,
            "box_pooler": pooler,
            "box_head": box_head,
            "box_predictor": FastRCNNOutputLayers(cfg, box_head.output_shape),
        }

    @classmethod
    def _init_box_pooler(
        cls, cfg: CfgNode, names: list[str], input_shape: dict[str, ShapeSpec]
    ) -> tuple[nn.Module, int]:
        """Build the pooler of the features of these names, and tell its bins per side."""
        pooler = _build_pooler(cfg, names, input_shape)
        return pooler, cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION

    def _forward_box(
        self, features: dict[str, Tensor], proposals: list[Instances]
    ) -> dict[str, Tensor] | list[Instances]:
        if self.training or self.refinement_rounds is None:
            return super()._forward_box(features, proposals)
        inputs = [features[name] for name in self.box_in_features]

        def predict(boxes: list[Boxes]) -> tuple:
            rois = [Instances(p.image_size, proposal_boxes=b) for p, b in zip(proposals, boxes)]
            predictions = self.box_predictor(self.box_head(self.box_pooler(inputs, boxes)))
            return (
                self.box_predictor.predict_boxes(predictions, rois),
                self.box_predictor.predict_probs(predictions, rois),
            )

        boxes, scores = run_rounds(proposals, predict, self.refinement_rounds)
        return [self._vote(b, s, p.image_size) for b, s, p in zip(boxes, scores, proposals)]

    def _vote(self, boxes: list[Tensor], scores: list[Tensor], image_size: tuple) -> Instances:
        predictor = self.box_predictor
        detections, _ = refine_and_vote(
            boxes,
            scores,
            image_size,
            predictor.test_score_thresh,
            predictor.test_nms_thresh,
            predictor.test_topk_per_image,
            self.vote_iou,
        )
        return detections


def _build_pooler(cfg: CfgNode, names: list[str], shapes: dict[str, ShapeSpec]) -> SkipPooler:
    head, pooler = cfg.MODEL.ROI_BOX_HEAD, cfg.MODEL.SKIP_POOLER
    return SkipPooler(
        [shapes[name] for name in names],
        output_size=head.POOLER_RESOLUTION,
        sampling_ratio=head.POOLER_SAMPLING_RATIO,
        pooler_type=head.POOLER_TYPE,
        norm=pooler.NORM,
        scale_init=pooler.SCALE_INIT,
        learn_scale=pooler.LEARN_SCALE,
        scale_batches=pooler.SCALE_BATCHES,
        scale_source=_deepest_backbone_feature(names, shapes),
        out_channels=pooler.OUT_CHANNELS,
    )


def _deepest_backbone_feature(names: list[str], shapes: dict[str, ShapeSpec]) -> int:
    """Index of the feature with the largest stride, the last of several; context only if alone."""
    candidates = [i for i, name in enumerate(names) if not name.startswith(CONTEXT)] or [0]
    return max(candidates, key=lambda i: (shapes[names[i]].stride, i))


def _check_features(names: list[str], shapes: dict[str, ShapeSpec]) -> None:
    if not names:
        raise IONError("MODEL.ROI_HEADS.IN_FEATURES is empty; name at least one feature.")
    unknown = [name for name in names if name not in shapes]
    if unknown:
        raise IONError(
            f"MODEL.ROI_HEADS.IN_FEATURES names {', '.join(map(repr, unknown))}, but the backbone "
            f"returns only {', '.join(shapes)}; choose from these."
        )
    if len(set(names)) != len(names):
        raise IONError(f"MODEL.ROI_HEADS.IN_FEATURES names a feature twice: {list(names)}.")
