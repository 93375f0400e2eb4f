"""Values that a model would trip over are told by the name of their key."""

import pytest
from detectron2.layers import ShapeSpec
from model_helpers import small_config

from ion_d2.engine.setup import build_model
from ion_d2.errors import IONError
from ion_d2.modeling.model_values import deepest_of

ANCHORS, FEATURES = "MODEL.ANCHOR_GENERATOR", "MODEL.RPN.IN_FEATURES"


BAD = {
    FEATURES: ([], ["conv9"], ["conv3", "conv5"]),
    f"{ANCHORS}.SIZES": ([], [[]], [[16], [-1]], [[16], [32], [64], [8]]),
    f"{ANCHORS}.ASPECT_RATIOS": ([[0.0]],), f"{ANCHORS}.SQUARE_SIZES": ([[32], [-1]],),
    "MODEL.ROI_HEADS.IN_FEATURES": ([], ["conv9"], ["conv5", "conv5"]),
    "MODEL.ROI_HEADS.NUM_CLASSES": (-1,), "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": (0,),
    "MODEL.ROI_HEADS.POSITIVE_FRACTION": (1.5,), "MODEL.ROI_HEADS.SCORE_THRESH_TEST": (2.0,),
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": (-0.5,), "MODEL.ROI_HEADS.IOU_THRESHOLDS": ([0.7, 0.3],),
    "MODEL.ROI_HEADS.IOU_LABELS": ([0],), "MODEL.ROI_BOX_HEAD.POOLER_TYPE": ("Max",),
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": (0,), "MODEL.ROI_BOX_HEAD.FC_DIM": (0,),
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": ((1.0, 1.0),), "MODEL.ROI_BOX_HEAD.FC_DROPOUT": (1.5,),
    "MODEL.ROI_BOX_HEAD.CLS_INIT_STD": (0.0, -0.1), "MODEL.RPN.PRE_NMS_TOPK_TRAIN": (0,),
    "MODEL.RPN.POST_NMS_TOPK_TEST": (-1,), "MODEL.CONTEXT.HIDDEN_DIM": (-8,),
    "MODEL.CONTEXT.OUT_DIM": (-8,), "MODEL.CONTEXT.DROPOUT": (1.0,),
    "MODEL.SKIP_POOLER.OUT_CHANNELS": (-1,), "MODEL.SKIP_POOLER.SCALE_BATCHES": (0,),
    "MODEL.SKIP_POOLER.SCALE_INIT": (-1.0,), "MODEL.SKIP_POOLER.MERGE_GAIN": (0.0, -1.0),
}  # fmt: skip


@pytest.mark.parametrize(("key", "value"), [(k, value) for k, bad in BAD.items() for value in bad])
def test_a_bad_value_is_told_by_its_key(key, value):
    with pytest.raises(IONError) as error:
        build_model(small_config(key, value))
    assert key in str(error.value)


SQUARES = ("MODEL.ANCHOR_GENERATOR.NAME", "IONAnchorGenerator", f"{ANCHORS}.SQUARE_SIZES")


@pytest.mark.parametrize(
    ("squares", "words"),
    [
        ([[32], [32, 48]], r"SQUARE_SIZES give unequal numbers of anchors \(\["),
        ([[32], [48], [64]], "SQUARE_SIZES has 3 lists, but MODEL.RPN.IN_FEATURES 2"),
    ],
)
def test_square_anchors_that_do_not_fit_are_told(squares, words):
    with pytest.raises(IONError, match=words):
        build_model(small_config(*SQUARES, squares))


@pytest.mark.parametrize("squares", [[], [8, 32], [[], []], [[8], [32]]])
def test_square_anchors_may_be_one_list_or_none(squares):
    build_model(small_config(*SQUARES, squares))


def test_context_that_the_backbone_lacks_is_told_how_to_get():
    with pytest.raises(IONError, match="names 'context'.*NAME to 'build_ion_context_backbone'"):
        build_model(small_config("MODEL.BACKBONE.NAME", "build_ion_vgg_backbone"))


@pytest.mark.parametrize("names", [["stage9", "stage12"], ["stage12", "stage9"]])
def test_of_equal_strides_the_last_stage_is_the_deepest(names):
    shapes = {name: ShapeSpec(channels=1, stride=16) for name in names}
    assert deepest_of(names, shapes) == "stage12"
    assert deepest_of(["p9", *names], {**shapes, "p9": ShapeSpec(stride=32)}) == "p9"
