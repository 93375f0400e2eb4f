"""Box refinement against Detectron2's inference, a literal reference and hand-computed values."""

from __future__ import annotations

import pytest
import torch
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference_single_image
from detectron2.structures import Boxes, Instances

from ion_d2.modeling.roi_heads.box_refinement import refine_and_vote, run_rounds

SHAPE = (80, 120)


def random_round(seed, rows=60, classes=3, agnostic=False):
    """Boxes that overlap a lot and stick out of the image, with softmax scores."""
    generator = torch.Generator().manual_seed(seed)
    columns = 1 if agnostic else classes
    corner = torch.rand(rows, columns, 2, generator=generator) * 60 - 10
    size = torch.rand(rows, columns, 2, generator=generator) * 40 + 30
    boxes = torch.cat([corner, corner + size], dim=2).reshape(rows, columns * 4)
    scores = (3 * torch.randn(rows, classes + 1, generator=generator)).softmax(dim=1)
    return boxes, scores


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    inter = max(width, 0.0) * max(height, 0.0)
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return inter / (area - inter) if inter > 0 else 0.0


def literal_reference(rounds, shape, score_thresh, nms_thresh, topk, vote_iou):
    """The paper's procedure word by word: lists and loops, one class at a time."""
    found = []
    num_classes = rounds[0][1].shape[1] - 1
    for label in range(num_classes):
        candidates = []
        row = 0
        for boxes, scores in rounds:
            for r in range(len(boxes)):
                column = label if boxes.shape[1] > 4 else 0
                corners = boxes[r, 4 * column : 4 * column + 4].tolist()
                box = [min(max(v, 0), shape[1 - i % 2]) for i, v in enumerate(corners)]
                if scores[r, label].item() > score_thresh:
                    candidates.append((scores[r, label].item(), box, row))
                row += 1
        candidates.sort(key=lambda c: -c[0])
        kept = []
        for candidate in candidates:
            if all(iou(candidate[1], other[1]) <= nms_thresh for other in kept):
                kept.append(candidate)
        for score, box, row in kept:
            total, sums = 0.0, [0.0] * 4
            for other_score, other, other_row in candidates:
                if other_row == row or iou(box, other) >= vote_iou:
                    total += other_score
                    sums = [s + other_score * v for s, v in zip(sums, other)]
            found.append((score, label, [s / total for s in sums]))
    found.sort(key=lambda f: -f[0])
    return found if topk < 0 else found[:topk]


def vote(boxes, scores, nms_thresh, vote_iou, score_thresh=-1.0):
    """The detections among boxes of a single class, the best first."""
    scores = torch.stack([scores, 1 - scores], dim=1)
    limits = (score_thresh, nms_thresh, -1, vote_iou)
    return refine_and_vote([boxes], [scores], SHAPE, *limits).pred_boxes.tensor


def test_votes_by_hand():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 4], [50, 50, 60, 60]])
    scores = torch.tensor([0.6, 0.2, 0.9, 0.5])
    # IoU with box 0: 1, 0.8, 0.4, 0. Only box 1 joins box 0: bottom = (0.6*10 + 0.2*8) / 0.8 = 9.5.
    moved = vote(boxes, scores, 0.7, 0.6)
    expected = torch.tensor([[0.0, 0, 10, 4], [0, 0, 10, 9.5], [50, 50, 60, 60]])
    torch.testing.assert_close(moved, expected)


def test_iou_equal_to_the_threshold_votes():
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 5.0]])
    moved = vote(boxes, torch.tensor([0.75, 0.25]), 0.4, 0.5)
    assert moved.tolist() == [[0.0, 0.0, 10.0, 8.75]]


def test_a_box_without_extent_or_score_votes_for_itself_and_none_for_nothing():
    boxes = torch.tensor([[1.0, 1.0, 3.0, 3.0], [5.0, 5.0, 5.0, 5.0]])
    assert sorted(vote(boxes, torch.zeros(2), 0.5, 0.5).tolist()) == boxes.tolist()
    assert vote(boxes, torch.zeros(2), 0.5, 0.5, score_thresh=0.05).shape == (0, 4)


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("topk", [-1, 5, 100])
@pytest.mark.parametrize("seed", range(4))
def test_one_round_without_vote_is_detectron2(seed, topk, agnostic):
    boxes, scores = random_round(seed, agnostic=agnostic)
    expected, _ = fast_rcnn_inference_single_image(boxes, scores, SHAPE, 0.05, 0.4, topk)
    actual = refine_and_vote([boxes], [scores], SHAPE, 0.05, 0.4, topk, None)
    assert actual.image_size == SHAPE and len(actual) == len(expected) > 0
    assert torch.equal(actual.pred_boxes.tensor, expected.pred_boxes.tensor)
    assert torch.equal(actual.scores, expected.scores)
    assert torch.equal(actual.pred_classes, expected.pred_classes)


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("vote_iou", [0.5, 0.85])
@pytest.mark.parametrize("num_rounds", [1, 2, 3])
def test_voting_is_the_literal_procedure(num_rounds, vote_iou, agnostic):
    rounds = [random_round(10 * num_rounds + i, agnostic=agnostic) for i in range(num_rounds)]
    boxes, scores = zip(*rounds)
    before = [tensor.clone() for tensor in boxes + scores]
    actual = refine_and_vote(boxes, scores, SHAPE, 0.1, 0.4, 12, vote_iou)
    expected = literal_reference(rounds, SHAPE, 0.1, 0.4, 12, vote_iou)
    assert actual.pred_classes.tolist() == [f[1] for f in expected]
    assert torch.allclose(actual.scores, torch.tensor([f[0] for f in expected]))
    boxes_expected = torch.tensor([f[2] for f in expected])
    assert torch.allclose(actual.pred_boxes.tensor, boxes_expected, atol=1e-4)
    assert all(torch.equal(a, b) for a, b in zip(boxes + scores, before))
    # The votes must have changed something, or this test would prove nothing.
    unmoved = refine_and_vote(boxes, scores, SHAPE, 0.1, 0.4, 12, None)
    assert not torch.allclose(actual.pred_boxes.tensor, unmoved.pred_boxes.tensor, atol=1e-2)


def test_rows_that_are_not_finite_are_left_out():
    boxes, scores = random_round(3)
    boxes[4, 5], scores[7, 0], boxes[9, 0] = float("nan"), float("inf"), float("-inf")
    good = torch.tensor([i for i in range(len(boxes)) if i not in (4, 7, 9)])
    expected = refine_and_vote([boxes[good]], [scores[good]], SHAPE, 0.05, 0.4, 50, 0.5)
    actual = refine_and_vote([boxes], [scores], SHAPE, 0.05, 0.4, 50, 0.5)
    assert torch.equal(actual.pred_boxes.tensor, expected.pred_boxes.tensor)
    detectron2, _ = fast_rcnn_inference_single_image(boxes, scores, SHAPE, 0.05, 0.4, 50)
    assert torch.equal(actual.scores, detectron2.scores)


@pytest.mark.parametrize("columns", [4, 12])
def test_image_without_proposals(columns):
    boxes, scores = [torch.zeros(0, columns)] * 2, [torch.zeros(0, 4)] * 2
    detections = refine_and_vote(boxes, scores, SHAPE, 0.05, 0.5, 100, 0.5)
    assert detections.pred_boxes.tensor.shape == (0, 4)


def proposals_of(*boxes):
    return [Instances(SHAPE, proposal_boxes=Boxes(tensor)) for tensor in boxes]


def test_second_round_starts_from_the_best_foreground_class():
    start = torch.tensor([[10.0, 10.0, 20.0, 20.0], [30.0, 30.0, 60.0, 60.0]])
    seen = []

    def predict(boxes):
        seen.append([b.tensor.clone() for b in boxes])
        # Class 0 moves a box right by 100 (out of the image), class 1 moves it down by 5.
        right, down = torch.tensor([100.0, 0, 100, 0]), torch.tensor([0.0, 5, 0, 5])
        regressed = [torch.cat([b.tensor + right, b.tensor + down], dim=1) for b in boxes]
        # The first proposal prefers class 0, the second class 1; the background wins everywhere.
        table = torch.tensor([[0.3, 0.1, 0.6], [0.1, 0.2, 0.7]])
        return regressed, [table[: len(b)] for b in boxes]

    boxes, scores = run_rounds(proposals_of(start, start[:0]), predict, rounds=2)
    assert torch.equal(seen[0][0], start) and seen[1][1].shape == (0, 4)
    assert seen[1][0].tolist() == [[110, 10, 120, 20], [30, 35, 60, 65]]
    assert [len(per_image) for per_image in boxes + scores] == [2, 2, 2, 2]
    assert boxes[0][1][1].tolist() == [130, 35, 160, 65, 30, 40, 60, 70]


def test_next_round_is_clipped_and_finite():
    start = torch.tensor([[10.0, 10.0, 20.0, 20.0], [100.0, 60.0, 110.0, 70.0]])
    seen = []

    def predict(boxes):
        seen.append(boxes[0].tensor.clone())
        regressed = boxes[0].tensor + 15
        regressed[0, 2] = float("nan")
        return [regressed], [torch.tensor([[0.1, 0.8, 0.1]] * 2)]

    run_rounds(proposals_of(start), predict, rounds=2)
    assert seen[1].tolist() == [[10, 10, 20, 20], [115, 75, 120, 80]]


def test_no_images():
    assert run_rounds([], lambda boxes: ([], []), rounds=2) == ([], [])
