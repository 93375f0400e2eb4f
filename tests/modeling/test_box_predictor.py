"""Losses that weigh images alike, against Detectron2's on each image alone."""

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from model_helpers import small_config

from ion_d2.modeling.roi_heads.box_predictor import ImageMeanOutputLayers


def make_layers():
    torch.manual_seed(0)
    layers = ImageMeanOutputLayers(small_config(), ShapeSpec(channels=8))
    plain = FastRCNNOutputLayers(small_config(), ShapeSpec(channels=8))
    plain.load_state_dict(layers.state_dict())
    return layers, plain


def sampled(count, seed):
    generator = torch.Generator().manual_seed(seed)
    instances = Instances((64, 64))
    corners = torch.rand(count, 2, generator=generator) * 20
    instances.proposal_boxes = Boxes(torch.cat([corners, corners + 20], dim=1))
    instances.gt_boxes = Boxes(torch.cat([corners + 2, corners + 23], dim=1))
    instances.gt_classes = torch.randint(0, 4, (count,), generator=generator)
    return instances


@pytest.mark.parametrize("counts", [(4, 4), (7, 2, 5), (3, 0), (0, 0)])
def test_losses_are_the_mean_over_images(counts):
    layers, plain = make_layers()
    proposals = [sampled(n, seed) for seed, n in enumerate(counts)]
    inputs = torch.randn(sum(counts), 8)
    with EventStorage():
        predictions = layers(inputs)
        losses = layers.losses(predictions, proposals)
        parts = zip(inputs.split(counts), proposals)
        per_image = [plain.losses(plain(x), [p]) for x, p in parts]
    assert set(losses) == {"loss_cls", "loss_box_reg"}
    for name, value in losses.items():
        expected = sum(x[name] for x in per_image) / len(per_image)
        torch.testing.assert_close(value, expected)
        assert torch.isfinite(value)
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in layers.parameters())


def test_the_log_is_of_the_whole_batch():
    layers, plain = make_layers()
    counts = (30, 10)
    proposals = [sampled(n, seed) for seed, n in enumerate(counts)]
    classes = torch.cat([p.gt_classes for p in proposals])
    scores = torch.nn.functional.one_hot(classes, 4).float()
    scores[30:] = scores[30:].roll(1, dims=1)  # all wrong
    predictions = scores.requires_grad_(), torch.zeros(40, 12, requires_grad=True)
    logged = []
    for it in (layers, plain):
        with EventStorage() as storage:
            it.losses(predictions, proposals)
        logged.append({name: value.values() for name, value in storage.histories().items()})
    assert logged[0] == logged[1]
    assert logged[0]["fast_rcnn/cls_accuracy"][0][0] == 0.75


def test_equal_counts_are_detectron2_bit_for_bit():
    layers, plain = make_layers()
    proposals, inputs = [sampled(5, 0), sampled(5, 1)], torch.randn(10, 8)
    with EventStorage():
        losses = layers.losses(layers(inputs), proposals)
        expected = plain.losses(plain(inputs), proposals)
    assert losses == expected


@pytest.mark.parametrize("std", [0.01, 0.1])
def test_the_class_scores_start_as_wide_as_the_config_says(std):
    cfg = small_config("MODEL.ROI_BOX_HEAD.CLS_INIT_STD", std, "MODEL.ROI_HEADS.NUM_CLASSES", 80)
    shape = ShapeSpec(channels=256)
    torch.manual_seed(0)
    plain = FastRCNNOutputLayers(cfg, shape)
    torch.manual_seed(0)
    layers = ImageMeanOutputLayers(cfg, shape)
    assert layers.cls_score.weight.std().item() == pytest.approx(std, rel=0.02)
    torch.testing.assert_close(layers.cls_score.weight, plain.cls_score.weight * (std / 0.01))
    for name in ("cls_score.bias", "bbox_pred.weight", "bbox_pred.bias"):
        assert torch.equal(layers.state_dict()[name], plain.state_dict()[name])
    if std == 0.01:
        assert torch.equal(layers.cls_score.weight, plain.cls_score.weight)
