"""Values that a model would trip over are told by the name of their key."""

import pytest
from model_helpers import small_config

from ion_d2.engine.setup import build_model
from ion_d2.errors import IONError

ANCHORS, FEATURES = "MODEL.ANCHOR_GENERATOR", "MODEL.RPN.IN_FEATURES"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (FEATURES, []),
        (FEATURES, ["conv9"]),
        (FEATURES, ["conv3", "conv5"]),
        (f"{ANCHORS}.SIZES", []),
        (f"{ANCHORS}.SIZES", [[]]),
        (f"{ANCHORS}.SIZES", [[16], [-1]]),
        (f"{ANCHORS}.SIZES", [[16], [32], [64], [8]]),
        (f"{ANCHORS}.ASPECT_RATIOS", [[0.0]]),
        ("MODEL.ROI_HEADS.IN_FEATURES", []),
        ("MODEL.ROI_HEADS.IN_FEATURES", ["conv9"]),
        ("MODEL.ROI_HEADS.IN_FEATURES", ["conv5", "conv5"]),
        ("MODEL.ROI_HEADS.NUM_CLASSES", -1),
        ("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 0),
        ("MODEL.ROI_HEADS.POSITIVE_FRACTION", 1.5),
        ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 2.0),
        ("MODEL.ROI_HEADS.NMS_THRESH_TEST", -0.5),
        ("MODEL.ROI_HEADS.IOU_THRESHOLDS", [0.7, 0.3]),
        ("MODEL.ROI_HEADS.IOU_LABELS", [0]),
        ("MODEL.ROI_BOX_HEAD.POOLER_TYPE", "Max"),
        ("MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", 0),
        ("MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS", (1.0, 1.0)),
        ("MODEL.RPN.PRE_NMS_TOPK_TRAIN", 0),
        ("MODEL.RPN.POST_NMS_TOPK_TEST", -1),
        ("MODEL.VGG.NORM", "XN"),
        ("MODEL.VGG.OUT_FEATURES", ["conv6"]),
        ("MODEL.BACKBONE.FREEZE_AT", 7),
    ],
)
def test_a_bad_value_is_told_by_its_key(key, value):
    with pytest.raises(IONError) as error:
        build_model(small_config(key, value))
    assert key in str(error.value) and "\n" not in str(error.value)
