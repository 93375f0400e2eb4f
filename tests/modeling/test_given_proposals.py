"""The model on boxes that come with the images, alone or beside the RPN's."""

import pytest
import torch
from model_helpers import losses_of, make_input, make_proposals, small_model, train_step

from ion_d2.errors import IONError

GIVEN = ["MODEL.PROPOSAL_GENERATOR.NAME", "PrecomputedProposals"]


def test_trains_and_detects_on_given_boxes():
    model, inputs = small_model(*GIVEN), make_input(proposals=True)
    assert set(train_step(model, inputs)) == {"loss_cls", "loss_box_reg"}
    (result,) = model.eval()([inputs])
    assert result["instances"].image_size == (96, 128)


def test_no_boxes_at_all():
    model, inputs = small_model(*GIVEN), make_input()
    inputs["proposals"] = make_proposals(number=0)
    losses = losses_of(model, inputs)  # the objects themselves are sampled
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert len(model.eval()([inputs])[0]["instances"]) == 0


def test_an_image_without_proposals_is_told():
    with pytest.raises(IONError, match="PrecomputedProposals.*MODEL.LOAD_PROPOSALS"):
        small_model(*GIVEN).eval()([make_input()])


def test_given_boxes_stand_beside_the_rpns():
    model = small_model("MODEL.RPN.POST_NMS_TOPK_TEST", "5").eval()
    seen = []
    model.roi_heads.register_forward_pre_hook(lambda _, args: seen.append(args[2]))
    inputs = make_input()
    given = make_proposals(number=7)
    model([inputs])
    model([{**inputs, "proposals": given}])
    (alone,), (both,) = seen
    assert len(both) == len(alone) + 7 <= 12
    boxes = both.proposal_boxes.tensor
    torch.testing.assert_close(boxes[-7:], given.proposal_boxes.tensor)
    torch.testing.assert_close(boxes[:-7], alone.proposal_boxes.tensor)
