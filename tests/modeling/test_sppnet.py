"""SPPnet's pooling and heads, against torchvision's operator and a literal maximum."""

import pytest
import torch
import torchvision
from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes
from model_helpers import make_input, small_model, train_step

from ion_d2.errors import IONError
from ion_d2.modeling import PyramidPooler

SHAPES = [ShapeSpec(channels=2, stride=8), ShapeSpec(channels=3, stride=16)]
SPP = (
    "MODEL.ROI_HEADS.NAME", "SPPROIHeads", "MODEL.ROI_HEADS.IN_FEATURES", ["conv5"],
    "MODEL.BACKBONE.NAME", "build_ion_vgg_backbone", "MODEL.VGG.OUT_FEATURES", ["conv4", "conv5"],
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIPool",
)  # fmt: skip


@pytest.mark.parametrize(("settings", "levels"), [({}, (6, 3, 2, 1)), ({"levels": (3, 1)}, (3, 1))])
def test_levels_are_those_of_roi_pool_feature_by_feature(settings, levels):
    torch.manual_seed(0)
    features = [torch.rand(2, 2, 12, 16), torch.rand(2, 3, 6, 8)]
    boxes = Boxes(torch.tensor([[0.0, 0, 127, 95], [10, 10, 60, 50], [40.0, 2, 90, 93]]))
    boxes = [boxes[:2], boxes[2:]]
    pooler = PyramidPooler(SHAPES, **settings)
    expected = [
        torchvision.ops.roi_pool(x, [b.tensor for b in boxes], bins, 1 / s.stride).flatten(1)
        for x, s in zip(features, SHAPES)
        for bins in levels
    ]
    result = pooler(features, boxes)
    width = 5 * sum(level**2 for level in levels)
    assert result.shape == (3, pooler.out_channels, 1, 1) == (3, width, 1, 1)
    assert torch.equal(result.flatten(1), torch.cat(expected, dim=1))
    assert pooler(features, [boxes[0][:0]] * 2).shape == (0, width, 1, 1)


@pytest.mark.parametrize("levels", [[], [6, 0]])
def test_bad_levels_name_the_key(levels):
    with pytest.raises(IONError, match="MODEL.ROI_BOX_HEAD.PYRAMID_LEVELS is"):
        small_model(*SPP, "MODEL.ROI_BOX_HEAD.PYRAMID_LEVELS", levels)


def test_only_what_follows_the_convolutions_is_trained():
    model = small_model(*SPP, "MODEL.BACKBONE.FREEZE_AT", 5)
    assert model.roi_heads.box_head.fc6.in_features == 50 * 64
    train_step(model, make_input())
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == name.startswith("backbone."), name


def test_detects_in_two_rounds():
    model = small_model(*SPP, "TEST.BOX_REFINEMENT.ENABLED", True).eval()
    with torch.no_grad():
        assert len(model([make_input()])[0]["instances"])
