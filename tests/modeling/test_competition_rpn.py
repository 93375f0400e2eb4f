"""The RPN of the competition: 22 anchors, mixed convolutions, and a step of training."""

import math

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import build_anchor_generator
from detectron2.modeling.proposal_generator.rpn import build_rpn_head
from model_helpers import losses_of, make_input, small_model
from torch.nn import functional as F

from ion_d2 import add_ion_config
from ion_d2.engine.setup import load_config
from ion_d2.errors import IONError

CONFIG = "configs/ion_vgg16_voc_mixed_rpn.yaml"
CONV5 = [ShapeSpec(channels=512, stride=16)]


def test_the_22_anchors():
    cfg = load_config(CONFIG)
    generator = build_anchor_generator(cfg, CONV5)
    assert generator.num_anchors == [22]
    (cells,) = (a.numpy() for a in generator.cell_anchors)
    widths, heights = cells[:, 2] - cells[:, 0], cells[:, 3] - cells[:, 1]
    scales, roots = (64, 90.5, 128, 181, 256, 362, 512), (math.sqrt(0.5), 1, math.sqrt(2))
    expected = [(32, 32), *((scale / root, scale * root) for scale in scales for root in roots)]
    np.testing.assert_allclose(np.stack([widths, heights], 1), expected, rtol=1e-5)
    np.testing.assert_allclose(cells[:, :2] + cells[:, 2:], 0, atol=1e-4)  # centered
    (boxes,) = generator([torch.zeros(1, 512, 3, 5)])
    assert len(boxes) == 3 * 5 * 22


def test_squares_for_each_feature():
    cfg = get_cfg()
    add_ion_config(cfg)
    cfg.MODEL.ANCHOR_GENERATOR.NAME = "IONAnchorGenerator"
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[64], [128]]
    shapes = [ShapeSpec(channels=8, stride=8), ShapeSpec(channels=8, stride=16)]
    cfg.MODEL.ANCHOR_GENERATOR.SQUARE_SIZES = [[8, 10], [32, 40]]
    generator = build_anchor_generator(cfg, shapes)
    assert generator.num_anchors == [5, 5]
    firsts = [(a[:2, 2] - a[:2, 0]).tolist() for a in generator.cell_anchors]
    assert firsts == [[8, 10], [32, 40]]
    cfg.MODEL.ANCHOR_GENERATOR.SQUARE_SIZES = [8, 10]
    assert build_anchor_generator(cfg, shapes).num_anchors == [5, 5]
    cfg.MODEL.ANCHOR_GENERATOR.SQUARE_SIZES = [[], []]
    assert build_anchor_generator(cfg, shapes).num_anchors == [3, 3]


def test_head_is_two_parallel_convolutions():
    torch.manual_seed(0)
    head = build_rpn_head(load_config(CONFIG), CONV5)
    three, five = head.conv.convs
    assert three.weight.shape == (384, 512, 3, 3) and five.weight.shape == (128, 512, 5, 5)
    assert sum(p.numel() for p in head.parameters()) == (
        384 * 512 * 9 + 384 + 128 * 512 * 25 + 128 + (512 + 1) * 22 * 5
    )
    assert head.objectness_logits.weight.std().item() == pytest.approx(0.01, rel=0.05)
    x = torch.randn(2, 512, 6, 7)
    (logits,), (deltas,) = head([x])
    parts = [F.conv2d(x, c.weight, c.bias, padding=n).relu() for n, c in ((1, three), (2, five))]
    hidden = torch.cat(parts, dim=1)
    weight = head.objectness_logits.weight
    torch.testing.assert_close(logits, F.conv2d(hidden, weight, head.objectness_logits.bias))
    assert logits.shape == (2, 22, 6, 7) and deltas.shape == (2, 88, 6, 7)


@pytest.mark.parametrize(
    ("kernels", "channels", "words"),
    [([3, 5], [384], "as many"), ([], [], "as many"), ([4], [8], "odd"), ([3], [0], "positive")],
)
def test_faulty_settings_are_told(kernels, channels, words):
    opts = ["MODEL.RPN.MIXED_KERNELS", str(kernels), "MODEL.RPN.MIXED_CHANNELS", str(channels)]
    with pytest.raises(IONError, match=rf"MIXED_KERNELS.*{words}"):
        build_rpn_head(load_config(CONFIG, opts), CONV5)


@pytest.mark.skipif("CONV_DIMS" not in get_cfg().MODEL.RPN, reason="an older Detectron2")
def test_convolutions_of_detectron2s_head_are_not_ignored():
    with pytest.raises(IONError, match=r"CONV_DIMS is \[256\].*MIXED_CHANNELS"):
        build_rpn_head(load_config(CONFIG, ["MODEL.RPN.CONV_DIMS", "[256]"]), CONV5)


def test_trains_in_the_small_model_on_two_features():
    opts = ["MODEL.RPN.HEAD_NAME", "IONRPNHead", "MODEL.RPN.MIXED_CHANNELS", "[12, 4]"]
    opts += ["MODEL.ANCHOR_GENERATOR.NAME", "IONAnchorGenerator"]
    opts += ["MODEL.ANCHOR_GENERATOR.SQUARE_SIZES", "[[8], [32]]"]
    model = small_model(*opts)
    assert model.proposal_generator.anchor_generator.num_anchors == [10, 10]
    losses = losses_of(model, make_input())
    (losses["loss_rpn_cls"] + losses["loss_rpn_loc"]).backward()
    head = model.proposal_generator.rpn_head
    for parameter in head.parameters():
        assert parameter.grad.abs().sum() > 0
    result = model.eval()([make_input()])[0]["instances"]
    assert len(result.pred_boxes) == len(result.scores)
