"""Averaging with the mirrored image, against symmetry and against a literal average."""

import pytest
import torch
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference
from detectron2.structures import Boxes, Instances
from model_helpers import make_input, small_model

from ion_d2.errors import IONError
from ion_d2.modeling.roi_heads.flip_averaging import average_with_mirrored, mirror_boxes

FLIP = ("TEST.FLIP_AVERAGING", True)


def test_mirror_by_hand():
    boxes = Boxes(torch.tensor([[10.0, 5, 30, 25], [0, 0, 100, 50]]))
    mirrored, none = mirror_boxes([boxes, boxes[:0]], [(50, 100), (64, 37)])
    assert mirrored.tensor.tolist() == [[70, 5, 90, 25], [0, 0, 100, 50]]
    assert none.tensor.shape == (0, 4)
    (again,) = mirror_boxes([mirrored], [(50, 100)])
    assert torch.equal(again.tensor, boxes.tensor)


def test_average_by_hand():
    # Two classes a row; the mirrored view saw (10..30) as (70..90) in an image 100 wide.
    here = [torch.tensor([[10.0, 5, 30, 25, 0, 0, 10, 10]])], [torch.tensor([[0.2, 0.3, 0.5]])]
    there = [torch.tensor([[66.0, 7, 86, 27, 90, 0, 100, 10]])], [torch.tensor([[0.4, 0.5, 0.1]])]
    (boxes,), (scores,) = average_with_mirrored(here, there, [(50, 100)])
    assert boxes.tolist() == [[12, 6, 32, 26, 0, 0, 10, 10]]
    assert scores[0].tolist() == pytest.approx([0.3, 0.4, 0.3])


def with_given_proposals(*opts):
    """A model that reads its proposals from the input, so that both views share them."""
    return small_model(*opts, "MODEL.PROPOSAL_GENERATOR.NAME", "PrecomputedProposals").eval()


def view(image, boxes):
    size = tuple(image.shape[-2:])
    given = Instances(size, proposal_boxes=boxes, objectness_logits=torch.zeros(len(boxes)))
    return {"image": image, "height": size[0], "width": size[1], "proposals": given}


def with_proposals(x):
    boxes = torch.tensor([[8.0, 8, 40, 48], [30, 20, 90, 80], [0, 0, 60, 60]])
    return view(x["image"], Boxes(boxes))


def mirrored_input(x):
    (boxes,) = mirror_boxes([x["proposals"].proposal_boxes], [x["proposals"].image_size])
    return view(x["image"].flip(-1), boxes)


@pytest.mark.parametrize("refine", [False, True])
def test_an_image_and_its_mirror_get_mirrored_detections(refine):
    """The average is symmetric, in a batch with padding as well; the plain model is not."""
    refinement = ("TEST.BOX_REFINEMENT.ENABLED", refine)
    inputs = [with_proposals(make_input(96, 128)), with_proposals(make_input(80, 100, seed=1))]
    for opts, symmetric in ((FLIP, True), ((), False)):
        model = with_given_proposals(*opts, *refinement)
        with torch.no_grad():
            here, there = model(inputs), model([mirrored_input(x) for x in inputs])
        for x, a, b in zip(inputs, here, there):
            a, b = a["instances"], b["instances"]
            assert len(a)
            same = len(a) == len(b) and torch.allclose(a.scores, b.scores, atol=1e-5)
            assert same == symmetric
            if symmetric:
                (back,) = mirror_boxes([b.pred_boxes], [(x["height"], x["width"])])
                torch.testing.assert_close(a.pred_boxes.tensor, back.tensor, atol=1e-2, rtol=0)


def test_detections_are_those_of_the_averaged_predictions():
    """Against Detectron2's inference on scores and boxes averaged word by word."""
    model, x = with_given_proposals(*FLIP), with_proposals(make_input(96, 128))
    heads, views = model.roi_heads, []
    for each in (x, mirrored_input(x)):
        images = model.preprocess_image([each])
        boxes = [each["proposals"].proposal_boxes]
        with torch.no_grad():
            features = model.backbone(images.tensor)
            pooled = heads.box_pooler([features[n] for n in heads.box_in_features], boxes)
            scores, deltas = heads.box_predictor(heads.box_head(pooled))
        regressed = heads.box_predictor.box2box_transform.apply_deltas(deltas, boxes[0].tensor)
        views.append((regressed.view(3, -1, 4), scores.softmax(dim=1)))
    boxes = views[0][0].clone()
    for row in range(3):
        for label in range(boxes.shape[1]):
            x0, y0, x1, y1 = views[1][0][row, label].tolist()
            boxes[row, label] = (boxes[row, label] + torch.tensor([128 - x1, y0, 128 - x0, y1])) / 2
    predictor = heads.box_predictor
    (expected,), _ = fast_rcnn_inference(
        [boxes.view(3, -1)], [(views[0][1] + views[1][1]) / 2], [(96, 128)],
        predictor.test_score_thresh, predictor.test_nms_thresh, predictor.test_topk_per_image,
    )  # fmt: skip
    with torch.no_grad():
        found = model([x])[0]["instances"]
    torch.testing.assert_close(found.scores, expected.scores)
    torch.testing.assert_close(found.pred_boxes.tensor, expected.pred_boxes.tensor)


def test_other_heads_are_refused():
    with pytest.raises(IONError, match="TEST.FLIP_AVERAGING needs.*StandardROIHeads"):
        small_model(
            *FLIP, "MODEL.ROI_HEADS.NAME", "StandardROIHeads", "MODEL.ROI_HEADS.IN_FEATURES",
            "['context']",
        )  # fmt: skip
