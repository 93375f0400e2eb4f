"""Feature pyramids over timm's networks: levels, ION behind them, and what is refused."""

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone, build_model
from model_helpers import losses_of, make_input
from timm_files import faster_rcnn, saved

import ion_d2
from ion_d2.errors import IONError

pytestmark = pytest.mark.slow

STAGES = ["stage2", "stage3", "stage4", "stage5"]


def config(**keys):
    pyramid = {
        "MODEL.FPN.IN_FEATURES": STAGES, "MODEL.FPN.OUT_CHANNELS": 16,
        "MODEL.ANCHOR_GENERATOR.SIZES": [[32], [64], [128], [256], [512]],
        "MODEL.RPN.IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"],
        "MODEL.ROI_HEADS.IN_FEATURES": ["p2", "p3", "p4", "p5"],
    }  # fmt: skip
    return faster_rcnn("build_timm_fpn_backbone", **{**pyramid, **keys})


def test_levels_are_sums_of_the_stages_and_of_coarser_levels():
    pyramid = build_backbone(config()).eval()
    image = torch.rand(1, 3, 64, 128)
    with torch.no_grad():
        levels, stages = pyramid(image), pyramid.bottom_up(image)
        top, below = pyramid.fpn_lateral5(stages["stage5"]), pyramid.fpn_lateral4(stages["stage4"])
        both = below + top.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        torch.testing.assert_close(levels["p5"], pyramid.fpn_output5(top))
        torch.testing.assert_close(levels["p4"], pyramid.fpn_output4(both))
        torch.testing.assert_close(levels["p6"], levels["p5"][:, :, ::2, ::2])
    shapes = {name: ShapeSpec(channels=16, stride=2**i) for i, name in enumerate(levels, 2)}
    assert pyramid.output_shape() == shapes
    assert list(shapes) == ["p2", "p3", "p4", "p5", "p6"]


def test_ion_plugs_into_it_and_its_network_has_its_weights(tmp_path):
    network = saved(tmp_path / "weights.pth", "resnet10t")
    cfg = config(**{"MODEL.TIMM.WEIGHTS": str(tmp_path / "weights.pth")})
    ion_d2.plug_in(cfg)
    assert cfg.MODEL.ROI_HEADS.IN_FEATURES == ["p2", "p3", "p4", "p5", "context"]
    model = build_model(cfg)
    found = dict(model.backbone.bottom_up.bottom_up.net.named_parameters())
    assert found["conv1.0.weight"].equal(network.conv1[0].weight)
    sum(losses_of(model, make_input(96, 128)).values()).backward()
    assert model.backbone.bottom_up.fpn_lateral5.weight.grad.abs().sum() > 0
    last = [p.grad for name, p in found.items() if name.startswith("layer4.")]
    assert any(grad is not None and grad.abs().sum() > 0 for grad in last)


def test_images_are_padded_to_what_the_network_reads_together():
    """MobileViT v2 reads cells in twos: multiples of 32 alone would not do."""
    keys = {"MODEL.TIMM.NAME": "mobilevitv2_050"}
    assert build_backbone(config(**keys)).size_divisibility == 64


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (
            {"MODEL.FPN.IN_FEATURES": ["res2", "res3"]},
            "FPN.IN_FEATURES names 'res2', 'res3', but .*returns only stage2",
        ),
        ({"MODEL.TIMM.OUTPUT_STRIDE": 16}, r"strides \[4, 8, 16, 16\].*OUTPUT_STRIDE to 0"),
        ({"MODEL.FPN.IN_FEATURES": ["stage2", "stage4"]}, r"strides \[4, 16\]"),
    ],
)
def test_stages_that_make_no_pyramid_are_refused(keys, words):
    with pytest.raises(IONError, match=words):
        build_backbone(config(**keys))
