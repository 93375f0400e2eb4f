"""IONROIHeads: the paper's head, and the refinement rounds through it."""

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import StandardROIHeads
from detectron2.structures import ImageList
from detectron2.utils.events import EventStorage
from model_helpers import make_input, make_proposals, small_config, small_model

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


def test_the_head_is_detectron2s_with_two_fully_connected_layers():
    """The same weights as fc1 and fc2 give the same losses and detections."""
    torch.manual_seed(0)
    ion = IONROIHeads(small_config(*SINGLE), SHAPES)
    cfg = small_config(*SINGLE, "MODEL.ROI_BOX_HEAD.NAME", "FastRCNNConvFCHead",
                       "MODEL.ROI_BOX_HEAD.NUM_FC", 2)  # fmt: skip
    plain = StandardROIHeads(cfg, SHAPES)
    state = {k.replace("fc6", "fc1").replace("fc7", "fc2"): v for k, v in ion.state_dict().items()}
    plain.load_state_dict(state)
    features, given = {"conv5": torch.randn(1, 8, 4, 6)}, make_input(64, 96)["instances"]
    images, proposals = ImageList(torch.zeros(1, 3, 64, 96), [(64, 96)]), [make_proposals(64, 96)]
    outcomes = []
    for heads in (ion, plain):
        with EventStorage(), torch.no_grad():
            torch.manual_seed(1)
            _, losses = heads.train()(images, features, proposals, [given])
            (found,), _ = heads.eval()(images, features, proposals, None)
        outcomes.append([*losses.values(), found.scores, found.pred_boxes.tensor])
    assert len(outcomes[0]) == 4
    assert all(torch.equal(a, b) for a, b in zip(*outcomes))


def test_the_scale_of_context_alone_is_the_norm_of_what_its_block_reads():
    """As where both are pooled: the next layers expect the amplitude of conv5 (sec. 3.1)."""
    features = {
        "conv5": 3 * torch.rand(1, 8, 4, 6), "context": 500 * torch.rand(1, 8, 4, 6),
    }  # fmt: skip
    scales, boxes = [], [make_proposals(64, 96).proposal_boxes]
    for names in (["conv5", "context"], ["context"]):
        cfg = small_config(
            "MODEL.ROI_HEADS.IN_FEATURES", names, "MODEL.SKIP_POOLER.SCALE_INIT", 0.0,
            "MODEL.SKIP_POOLER.SCALE_BATCHES", 2,
        )  # fmt: skip
        heads = IONROIHeads(cfg, SHAPES).train()
        given = [features[name] for name in heads.in_features]
        for _ in range(3):  # each step has maps of its own
            pooled = heads.box_pooler([maps.clone() for maps in given], boxes)
        scales.append(heads.box_pooler.scale.factor)
    assert torch.equal(*(scale[:8] for scale in scales))
    assert heads.in_features == ["context", "conv5"] and scales[1].shape == (8,)
    only_context = heads.box_pooler([given[0], 0 * given[1]], boxes)
    assert torch.equal(only_context, pooled)


def test_rounds_and_votes_are_switched_by_themselves():
    """Scores do not move by a vote; one round without a vote is plain inference."""
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
    with torch.no_grad():
        expected, got = plain([make_input()])[0]["instances"], found[1, False]
    assert len(got) and torch.equal(got.pred_boxes.tensor, expected.pred_boxes.tensor)
    assert torch.equal(got.scores, expected.scores)
    assert torch.equal(got.pred_classes, expected.pred_classes)


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (("TEST.BOX_REFINEMENT.ROUNDS", 0), "TEST.BOX_REFINEMENT.ROUNDS is 0"),
        (("TEST.BOX_REFINEMENT.VOTE_IOU", 0.0), "TEST.BOX_REFINEMENT.VOTE_IOU is 0.0"),
        (("TEST.BOX_REFINEMENT.VOTE_IOU", 1.5), "TEST.BOX_REFINEMENT.VOTE_IOU is 1.5.*VOTE False"),
    ],
)
def test_bad_refinement_names_the_key(opts, words):
    cfg = small_config(*SINGLE, "TEST.BOX_REFINEMENT.ENABLED", True, *opts)
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
