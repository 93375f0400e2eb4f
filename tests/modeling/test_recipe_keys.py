"""What the recipe asks of the model's parts: one switch for dropout, and which ROIs are sampled."""

import pytest
import torch
from detectron2.structures import Boxes, Instances, pairwise_iou
from detectron2.utils.events import EventStorage
from model_helpers import make_input, small_config, small_model

from ion_d2.modeling.roi_heads.ion_roi_heads import IONROIHeads

VOC = "configs/ion_vgg16_voc.yaml"


def dropouts(model):
    return {n: m.p for n, m in model.named_modules() if isinstance(m, torch.nn.Dropout)}


def test_dropout_of_the_paper_and_none_by_one_key():
    assert dropouts(small_model(config_file=VOC)) == {
        "backbone.context.dropout": 0.25, "roi_heads.box_head.dropout": 0.5,
    }  # fmt: skip
    assert set(dropouts(small_model("MODEL.DROPOUT_ON", False, config_file=VOC)).values()) == {0.0}


def test_without_dropout_nothing_in_the_trained_model_is_random():
    losses = []
    for on in (True, False):
        model = small_model("MODEL.DROPOUT_ON", on, config_file=VOC).train()
        images = model.preprocess_image([make_input()])
        outputs = []
        for seed in (0, 1):
            torch.manual_seed(seed)
            with torch.no_grad():
                context = model.backbone(images.tensor)["context"]
                outputs.append(
                    model.roi_heads.box_head(torch.ones(2, 64, 7, 7)).sum() + context.sum()
                )
        losses.append(outputs)
    assert losses[0][0] != losses[0][1] and losses[1][0] == losses[1][1]


def sample(boxes, objects, classes):
    """The ROIs that the recipe's heads sample from boxes, given the objects."""
    backbone = small_model(config_file=VOC).backbone
    heads = IONROIHeads(small_config(config_file=VOC), backbone.output_shape())
    logits = torch.zeros(len(boxes))
    proposals = Instances((200, 200), proposal_boxes=Boxes(boxes), objectness_logits=logits)
    target = Instances((200, 200), gt_boxes=Boxes(objects), gt_classes=torch.tensor(classes))
    with EventStorage():
        return heads.label_and_sample_proposals([proposals], [target])[0]


@pytest.mark.parametrize("seed", range(3))
def test_background_overlaps_by_a_tenth_to_a_half(seed):
    """128 ROIs, at most a quarter foreground; what overlaps less than 0.1 is never among them."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(2000, 2, generator=generator) * 150
    sizes = torch.rand(2000, 2, generator=generator) * 80 + 5
    boxes = torch.cat([corners, corners + sizes], dim=1)
    objects = torch.tensor([[20.0, 20, 90, 80], [100, 90, 150, 170]])
    sampled = sample(boxes, objects, [0, 2])
    overlap = pairwise_iou(Boxes(objects), sampled.proposal_boxes).max(dim=0).values
    foreground = sampled.gt_classes < 3
    assert len(sampled) == 128 and foreground.sum() == 32
    assert (overlap[foreground] >= 0.5).all()
    background = overlap[~foreground]
    assert (background >= 0.1).all() and (background < 0.5).all()
    everywhere = pairwise_iou(Boxes(objects), Boxes(boxes)).max(dim=0).values
    assert (everywhere < 0.1).sum() > 500


def test_few_background_boxes_give_fewer_rois():
    # IoU with the target: 0, 0.01, 0.0999..., 0.1, 0.5.
    widths = torch.tensor([1.0, 9.99, 10.0, 50.0])
    boxes = torch.stack([torch.zeros(4), torch.zeros(4), widths, torch.full((4,), 100.0)], dim=1)
    far = torch.tensor([[150.0, 150, 190, 190]])
    sampled = sample(torch.cat([far, boxes]), torch.tensor([[0.0, 0, 100, 100]]), [1])
    found = set(zip(sampled.proposal_boxes.tensor[:, 2].tolist(), sampled.gt_classes.tolist()))
    # The object itself is a proposal too, as in Fast R-CNN.
    assert found == {(10.0, 3), (50.0, 1), (100.0, 1)}
