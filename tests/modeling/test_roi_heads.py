"""IONROIHeads against Detectron2's own heads, and the refinement rounds through them."""

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import StandardROIHeads
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import EventStorage
from model_helpers import make_input, small_config, small_model

from ion_d2.errors import IONError
from ion_d2.modeling.roi_heads.ion_roi_heads import IONROIHeads

SHAPES = {
    "conv4": ShapeSpec(channels=8, stride=8),
    "conv5": ShapeSpec(channels=8, stride=16),
    "context": ShapeSpec(channels=8, stride=16),
}
SINGLE = (
    "MODEL.ROI_HEADS.IN_FEATURES", "['conv5']", "MODEL.SKIP_POOLER.NORM", "none",
    "MODEL.SKIP_POOLER.OUT_CHANNELS", 8,
)  # fmt: skip


def make_proposals():
    proposals = Instances((64, 96))
    proposals.proposal_boxes = Boxes(
        torch.tensor([[4.0, 4, 40, 40], [20, 10, 90, 60], [0, 0, 30, 60]])
    )
    proposals.objectness_logits = torch.zeros(3)
    return [proposals]


def test_single_plain_feature_equals_the_fast_rcnn_head():
    """Detectron2's heads with fc1/fc2 and the same weights give the same losses and detections."""
    torch.manual_seed(0)
    ion = IONROIHeads(small_config(*SINGLE), SHAPES)
    cfg = small_config(*SINGLE, "MODEL.ROI_BOX_HEAD.NAME", "FastRCNNConvFCHead",
                       "MODEL.ROI_BOX_HEAD.NUM_FC", 2)  # fmt: skip
    plain = StandardROIHeads(cfg, SHAPES)
    state = {k.replace("fc6", "fc1").replace("fc7", "fc2"): v for k, v in ion.state_dict().items()}
    plain.load_state_dict(state)
    features = {"conv5": torch.randn(1, 8, 4, 6)}
    images = ImageList(torch.zeros(1, 3, 64, 96), [(64, 96)])
    outcomes = []
    for heads in (ion, plain):
        with EventStorage(), torch.no_grad():
            torch.manual_seed(1)
            _, losses = heads.train()(
                images, features, make_proposals(), [make_input(64, 96)["instances"]]
            )
            detections, _ = heads.eval()(images, features, make_proposals(), None)
        outcomes.append((losses, detections[0]))
    for name, value in outcomes[0][0].items():
        assert torch.equal(value, outcomes[1][0][name])
    assert torch.equal(outcomes[0][1].scores, outcomes[1][1].scores)
    assert torch.equal(outcomes[0][1].pred_boxes.tensor, outcomes[1][1].pred_boxes.tensor)


def test_scale_is_measured_on_the_deepest_backbone_feature():
    cfg = small_config("MODEL.ROI_HEADS.IN_FEATURES", "['conv5', 'conv4', 'context']")
    heads = IONROIHeads(cfg, SHAPES)
    assert heads.box_pooler.scale_source == 0
    cfg = small_config("MODEL.ROI_HEADS.IN_FEATURES", "['context']")
    assert IONROIHeads(cfg, SHAPES).box_pooler.scale_source == 0


@pytest.mark.parametrize(
    ("features", "words"),
    [
        ("['conv4', 'res9']", "IN_FEATURES names 'res9'.*conv4, conv5, context"),
        ("['conv4', 'conv4']", "names a feature twice"),
        ("[]", "IN_FEATURES is empty"),
    ],
)
def test_bad_features_name_the_key(features, words):
    with pytest.raises(IONError, match=words):
        IONROIHeads(small_config("MODEL.ROI_HEADS.IN_FEATURES", features), SHAPES)


def test_one_round_without_votes_equals_plain_inference():
    plain = small_model().eval()
    refined = small_model(
        "TEST.BOX_REFINEMENT.ENABLED", True, "TEST.BOX_REFINEMENT.ROUNDS", 1,
        "TEST.BOX_REFINEMENT.VOTE", False,
    ).eval()  # fmt: skip
    refined.load_state_dict(plain.state_dict())
    with torch.no_grad():
        a, b = plain([make_input()])[0]["instances"], refined([make_input()])[0]["instances"]
    assert len(a) and torch.equal(a.pred_boxes.tensor, b.pred_boxes.tensor)
    assert torch.equal(a.scores, b.scores) and torch.equal(a.pred_classes, b.pred_classes)


def test_rounds_and_votes_are_switched_by_themselves():
    """Scores do not move by a vote, boxes do not change in number by one round more or less."""
    plain, found = small_model().eval(), {}
    for rounds, vote in ((1, False), (1, True), (2, False), (2, True)):
        model = small_model(
            "TEST.BOX_REFINEMENT.ENABLED", True, "TEST.BOX_REFINEMENT.ROUNDS", rounds,
            "TEST.BOX_REFINEMENT.VOTE", vote,
        ).eval()  # fmt: skip
        model.load_state_dict(plain.state_dict())
        with torch.no_grad():
            found[rounds, vote] = model([make_input()])[0]["instances"]
    for rounds in (1, 2):
        unmoved, moved = found[rounds, False], found[rounds, True]
        assert torch.equal(unmoved.scores, moved.scores)
        assert not torch.equal(unmoved.pred_boxes.tensor, moved.pred_boxes.tensor)
    assert not torch.equal(found[1, False].scores, found[2, False].scores)


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (("ROUNDS", 0), "TEST.BOX_REFINEMENT.ROUNDS is 0"),
        (("VOTE_IOU", 0.0), "TEST.BOX_REFINEMENT.VOTE_IOU is 0.0"),
        (("VOTE_IOU", 1.5), "TEST.BOX_REFINEMENT.VOTE_IOU is 1.5.*VOTE False"),
    ],
)
def test_bad_refinement_names_the_key(opts, words):
    key, value = opts
    opts = ("TEST.BOX_REFINEMENT.ENABLED", True, f"TEST.BOX_REFINEMENT.{key}", value)
    cfg = small_config(*SINGLE, *opts)
    with pytest.raises(IONError, match=words):
        IONROIHeads(cfg, SHAPES)


def test_two_rounds_pool_twice_and_run_the_backbone_once():
    model = small_model("TEST.BOX_REFINEMENT.ENABLED", True).eval()
    counts = {"backbone": 0, "pooler": 0}

    def count(name):
        return lambda *_: counts.__setitem__(name, counts[name] + 1)

    model.backbone.register_forward_hook(count("backbone"))
    model.roi_heads.box_pooler.register_forward_hook(count("pooler"))
    with torch.no_grad():
        found = model([make_input()])[0]["instances"]
    assert counts == {"backbone": 1, "pooler": 2} and len(found)


def test_convolutions_in_the_box_head_are_refused():
    with pytest.raises(IONError, match="MODEL.ROI_BOX_HEAD.NUM_CONV is 1"):
        IONROIHeads(small_config(*SINGLE, "MODEL.ROI_BOX_HEAD.NUM_CONV", 1), SHAPES)
