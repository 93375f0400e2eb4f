"""One config of each family of Detectron2's model zoo, plugged and put through a step."""

import check_zoo
import plugged
import pytest
import torch
from detectron2.modeling import FPN

pytestmark = pytest.mark.slow

# The same architectures, a fraction as wide.
NARROW = [
    "MODEL.RESNETS.STEM_OUT_CHANNELS", 16, "MODEL.RESNETS.RES2_OUT_CHANNELS", 32,
    "MODEL.FPN.OUT_CHANNELS", 32, "MODEL.SKIP_POOLER.OUT_CHANNELS", 32,
    "MODEL.CONTEXT.HIDDEN_DIM", 16, "MODEL.ROI_BOX_HEAD.FC_DIM", 32,
    "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", (32, 32), "MODEL.ROI_MASK_HEAD.CONV_DIM", 16,
]  # fmt: skip
RESNET, RESNEXT = ["MODEL.RESNETS.WIDTH_PER_GROUP", 8], ["MODEL.RESNETS.WIDTH_PER_GROUP", 1]
FAMILIES = {
    "COCO-Detection/fast_rcnn_R_50_FPN_1x.yaml": ("IONROIHeads", RESNET),
    "COCO-Detection/faster_rcnn_R_50_C4_1x.yaml": ("IONRes5ROIHeads", RESNET),
    "COCO-Detection/faster_rcnn_R_101_DC5_3x.yaml": ("IONROIHeads", RESNET),
    "COCO-Detection/faster_rcnn_X_101_32x8d_FPN_3x.yaml": ("IONROIHeads", RESNEXT),
    "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml": ("IONRes5ROIHeads", RESNET),
    "COCO-InstanceSegmentation/mask_rcnn_R_50_DC5_1x.yaml": ("IONROIHeads", RESNET),
    "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x_giou.yaml": ("IONROIHeads", RESNET),
    "COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml": ("IONROIHeads", RESNET),
    "Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml": ("IONCascadeROIHeads", RESNET),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_family_builds_trains_and_infers(name):
    heads, width = FAMILIES[name]
    seen = check_zoo.check(name, [*NARROW, *width])
    assert seen.heads == heads and seen.features[-1] == "context"
    assert seen.parameters < 10e6 and seen.trained > 50
    assert seen.overrides["MODEL.CONTEXT.IN_FEATURE"] == seen.features[-2]


def test_regnet_which_is_lazy_only():
    seen = check_zoo.check("COCO-InstanceSegmentation/mask_rcnn_regnetx_4gf_dds_fpn_1x.py")
    assert (seen.heads, seen.overrides) == ("IONROIHeads", {}) and seen.losses == 5


def test_a_parameter_that_gets_no_gradient_is_found():
    model, _ = plugged.build_plugged(
        "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml", [*NARROW, *RESNET]
    )
    model.unused = torch.nn.Linear(1, 1)
    with pytest.raises(plugged.IONError, match="2 parameters without a gradient: unused.weight"):
        plugged.exercise(model)


def test_report_tells_what_was_left_out_and_what_failed(monkeypatch, capsys):
    def fails(self, *args, **kwargs):
        raise ValueError("out\nof order")

    monkeypatch.setattr(FPN, "__init__", fails)
    assert check_zoo.main(["--only", "_R_50_FPN_1x.yaml"]) == 1
    out = capsys.readouterr().out
    assert "Excluded: COCO-Detection/rpn_R_50_FPN_1x.yaml: ProposalNetwork has no ROI heads" in out
    assert "Excluded: COCO-Detection/retinanet_R_50_FPN_1x.yaml: RetinaNet has no ROI heads" in out
    assert "Failed: COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml: out of order" in out
    assert "0 of 4 configs" in out


def test_a_name_that_fits_nothing(capsys):
    assert check_zoo.main(["--only", "nothing"]) == 1
    assert "fits no config" in capsys.readouterr().err
