"""Iterative box regression with weighted voting at test time, the paper's "W" (sec. 4.2).

The boxes of a first pass through the ROI head go through it again; the boxes of all passes compete
in one non-maximum suppression; each survivor then moves to the score-weighted mean of the boxes
that overlap it.

Shape shorthand: R proposals of one image, the same in every round; K foreground classes, and column
K of the scores is the background; V boxes of one class from all rounds; M boxes that survive
suppression, of all classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference_single_image
from detectron2.structures import Boxes, Instances
from torch import Tensor
from torchvision.ops import clip_boxes_to_image

from ...compat import matched_iou

# For each image its regressed boxes, (R, K*4) or (R, 4), and its probabilities, (R, K+1).
Predictions = tuple[Sequence[Tensor], Sequence[Tensor]]
# Maps the boxes of each image to its predictions.
Predict = Callable[[list[Boxes]], Predictions]


def refine_and_vote(
    boxes_per_round: Sequence[Tensor],
    scores_per_round: Sequence[Tensor],
    image_shape: tuple[int, int],
    score_thresh: float,
    nms_thresh: float,
    topk_per_image: int,
    vote_iou: float | None,
) -> Instances:
    """Turn the predictions of all rounds for one image into its detections.

    With one round and no vote the detections are Detectron2's own for a Fast R-CNN head. Rows with
    a value that is not finite take no part.

    Args:
        boxes_per_round: regressed boxes of each round, (R, K*4) or, class-agnostic, (R, 4).
        scores_per_round: softmax scores of each round, (R, K+1), background last.
        image_shape: height and width in pixels.
        score_thresh: candidates must score more, also to vote.
        nms_thresh: IoU above which a lower-scored box of the same class is suppressed.
        topk_per_image: detections to keep; negative keeps all.
        vote_iou: overlap from which a candidate of the same class votes; None for no vote.

    Returns:
        The detections (``pred_boxes``, ``scores``, ``pred_classes``), best first.
    """
    boxes, scores = torch.cat(list(boxes_per_round)), torch.cat(list(scores_per_round))
    finite = torch.isfinite(boxes).all(dim=1) & torch.isfinite(scores).all(dim=1)
    boxes, scores = boxes[finite], scores[finite]
    detections, rows = fast_rcnn_inference_single_image(
        boxes, scores, image_shape, score_thresh, nms_thresh, topk_per_image
    )
    if vote_iou is not None:
        _vote(detections, rows, boxes, scores, score_thresh, vote_iou)
    return detections


def _vote(
    detections: Instances,
    rows: Tensor,
    boxes: Tensor,
    scores: Tensor,
    score_thresh: float,
    vote_iou: float,
) -> None:
    """Move each detection, which comes from one of the ``rows``, by the vote of its class.

    All V rows vote, suppressed ones included: (M, V, 4) boxes, (M, V) scores. A box always votes
    for itself.
    """
    image_shape, labels = detections.image_size, detections.pred_classes
    boxes = clip_boxes_to_image(boxes.reshape(-1, boxes.shape[1] // 4, 4), image_shape)
    columns = labels if boxes.shape[1] > 1 else torch.zeros_like(labels)
    voters, scores = boxes[:, columns].transpose(0, 1), scores[:, labels].t()
    # float64 keeps the sums exact enough and out of reach of autocast; the floor keeps the vote of
    # a box that scores 0 defined.
    scores, own = scores.masked_fill(scores <= score_thresh, 0.0).double(), rows[:, None]
    mine = scores.gather(1, own).clamp(min=torch.finfo(torch.float32).tiny)
    detected = detections.pred_boxes.tensor
    own_box = detected[:, None].expand_as(voters)
    overlaps = matched_iou(Boxes(own_box.reshape(-1, 4)), Boxes(voters.reshape(-1, 4)))
    weights = (scores * (overlaps.view(scores.shape) >= vote_iou)).scatter(1, own, mine)
    weights = weights / weights.sum(dim=1, keepdim=True)
    moved = (weights[:, None] @ voters.double())[:, 0].to(detected.dtype)
    # Rounding of the mean may step over the border by the last bit.
    detections.pred_boxes = Boxes(clip_boxes_to_image(moved, image_shape))


def run_rounds(
    proposals: Sequence[Instances], predict: Predict, rounds: int
) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
    """Pass proposals through the ROI head several times, each time from where it moved them.

    A proposal enters the next round as the box of its best foreground class, clipped to the image.
    MR-CNN instead forwards one box for every class above a threshold; one a proposal keeps the cost
    of a round fixed. A box that is not finite stays where it was.

    Args:
        proposals: for each image, Instances with ``proposal_boxes`` (R boxes).
        predict: called once a round with the boxes of every image.
        rounds: number of passes, at least 1.

    Returns:
        The boxes and the probabilities, each indexed by image, then by round.
    """
    sizes = [p.image_size for p in proposals]
    current = [p.proposal_boxes for p in proposals]
    found = [predict(current)]
    while len(found) < rounds:
        # The last round's boxes and scores, and what they were regressed from, image by image.
        last = zip(*found[-1], current, sizes)
        current = [_best_boxes(b, s, previous.tensor, size) for b, s, previous, size in last]
        found.append(predict(current))
    boxes, scores = ([list(image) for image in zip(*each)] for each in zip(*found))
    return boxes, scores


def _best_boxes(
    regressed: Tensor, probabilities: Tensor, previous: Tensor, image_shape: tuple[int, int]
) -> Boxes:
    """Pick each proposal's box of its best foreground class, to start the next round."""
    regressed = regressed.view(-1, regressed.shape[1] // 4, 4)
    best = probabilities[:, :-1].argmax(dim=1)
    if regressed.shape[1] == 1:
        best = torch.zeros_like(best)
    chosen = regressed.gather(1, best[:, None, None].expand(-1, 1, 4))[:, 0]
    finite = torch.isfinite(chosen).all(dim=1, keepdim=True)
    chosen = torch.where(finite, chosen, previous.to(chosen.dtype))
    return Boxes(clip_boxes_to_image(chosen, image_shape))
