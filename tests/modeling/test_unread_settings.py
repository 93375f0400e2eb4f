"""Settings that a model would ignore, and parts that it would not read, are told by their keys."""

import re

import pytest
from detectron2.modeling import BACKBONE_REGISTRY
from model_helpers import small_config, small_model

from ion_d2.engine.setup import build_model, load_config
from ion_d2.errors import IONError
from ion_d2.modeling.backbone import build_ion_vgg_backbone
from ion_d2.modeling.context import CONTEXT_REGISTRY, Conv

CONTEXT, HEAD = "MODEL.CONTEXT", "MODEL.ROI_BOX_HEAD"
RETINANET = (
    "MODEL.META_ARCHITECTURE", "RetinaNet", "MODEL.ROI_HEADS.NAME", "StandardROIHeads",
    "MODEL.CONTEXT.OUT_DIM", 64, "MODEL.RETINANET.NUM_CLASSES", 3,
    "MODEL.ANCHOR_GENERATOR.SIZES", "[[32]]", "MODEL.RETINANET.IN_FEATURES",
)  # fmt: skip


@pytest.mark.parametrize(
    ("opts", "key", "words"),
    [
        (("PARTS", ["Conv"]), "PARTS", "for Chain or Branches, but MODEL.CONTEXT.NAME is 'IRNN'"),
        (("CELL", "lstm"), "CELL", "for RNN"),
        (("KERNEL_SIZE", 5), "KERNEL_SIZE", "for Conv"),
        (("NAME", "RNN", "KERNEL_SIZE", 5), "KERNEL_SIZE", "for Conv, but .*NAME is 'RNN'"),
        (("NAME", "Conv", "ALL_STACKS", True), "ALL_STACKS", "for IRNN"),
        (("NAME", "RNN", "SHARED_INPUT", False), "SHARED_INPUT", "for IRNN"),
        (("NAME", "GlobalAverage", "NUM_STACKS", 1), "NUM_STACKS", "for IRNN or RNN or Conv"),
        (("NAME", "Conv", "DIRECTIONS", [["right", "down"]]), "DIRECTIONS", "for IRNN or RNN, but"),
        (("NAME", "Chain", "PARTS", ["Conv"], "FIRST_STEP_BIAS", True), "FIRST_STEP_BIAS", "for"),
        (("ALL_STACKS", True), "ALL_STACKS", "nothing reads an earlier stack: name 'context1' in"),
        (("NAME", "Branches", "PARTS", ["IRNN", "Conv"]), "NAME", "nothing reads context_conv"),
        (("NAME", "Chain", "PARTS", ["IRNN", "IRNN"], "ALL_STACKS", True), "ALL_STACKS",
         "two blocks of MODEL.CONTEXT.PARTS would return context1"),
        (("NAME", "GlobalAverage", "NUM_STACKS", 0), "NUM_STACKS", "must be a whole number above"),
    ],
)  # fmt: skip
def test_a_setting_of_another_kind_of_context_is_told(opts, key, words):
    keys = [f"{CONTEXT}.{o}" if i % 2 == 0 else o for i, o in enumerate(opts)]
    with pytest.raises(IONError, match=f"{CONTEXT}.{key} is .*{words}"):
        build_model(small_config(*keys))


@pytest.mark.parametrize(
    "opts",
    [
        ("NAME", "Chain", "PARTS", ["Conv", "RNN"], "KERNEL_SIZE", 5, "CELL", "lstm"),
        # What shared configs and plug_in set for several kinds.
        ("NAME", "GlobalAverage", "INIT", "rows_then_columns", "BIAS_INIT", 3.0, "NORM", "BRN",
         "TRANSITION", "identity", "HIDDEN_DIM", 8, "DROPOUT", 0.1),
    ],
)  # fmt: skip
def test_a_setting_that_some_part_reads_or_many_configs_share_is_not(opts):
    small_model(*[f"{CONTEXT}.{o}" if i % 2 == 0 else o for i, o in enumerate(opts)])


def test_a_context_block_of_ones_own_may_read_any_setting(monkeypatch):
    monkeypatch.setitem(CONTEXT_REGISTRY._obj_map, "Mine", Conv)
    opts = ("NAME", "Mine", "KERNEL_SIZE", 5, "CELL", "lstm")
    small_model(*[f"{CONTEXT}.{o}" if i % 2 == 0 else o for i, o in enumerate(opts)])


@pytest.mark.parametrize(
    ("key", "value", "able"),
    [
        (f"{HEAD}.PYRAMID_LEVELS", [4, 1], "SPPROIHeads"),
        (f"{HEAD}.NORM", "GN", "FastRCNNConvFCHead"),
    ],
)
def test_a_setting_of_other_heads_is_told(key, value, able):
    with pytest.raises(IONError, match=f"{key} is .*would ignore it; set it to .*, or .*{able}"):
        build_model(small_config(key, value))
    name = "MODEL.ROI_HEADS.NAME" if able.endswith("ROIHeads") else f"{HEAD}.NAME"
    small_model(key, value, name, able, f"{HEAD}.NUM_FC", 2)


@pytest.mark.parametrize(
    ("key", "value", "switch", "off", "on"),
    [
        ("TEST.BOX_REFINEMENT.VOTE", False, "TEST.BOX_REFINEMENT.ENABLED", False, True),
        ("MODEL.RPN.MIXED_KERNELS", [3, 7], "MODEL.RPN.HEAD_NAME", "StandardRPNHead", "IONRPNHead"),
        (
            "MODEL.RPN.MIXED_CHANNELS",
            [9, 7],
            "MODEL.RPN.HEAD_NAME",
            "StandardRPNHead",
            "IONRPNHead",
        ),
        (
            "MODEL.ANCHOR_GENERATOR.SQUARE_SIZES",
            [[16]],
            "MODEL.ANCHOR_GENERATOR.NAME",
            "DefaultAnchorGenerator",
            "IONAnchorGenerator",
        ),
        ("TEST.BOX_REFINEMENT.ROUNDS", 3, "TEST.BOX_REFINEMENT.ENABLED", False, True),
        ("MODEL.SKIP_POOLER.LEARN_SCALE", False, "MODEL.SKIP_POOLER.NORM", "none", "roi"),
        (f"{HEAD}.FC_DROPOUT", 0.3, f"{HEAD}.NAME", "FastRCNNConvFCHead", "IONBoxHead"),
        (
            "MODEL.SKIP_POOLER.CONTEXT",
            "residual",
            "MODEL.ROI_HEADS.NAME",
            "SPPROIHeads",
            "IONROIHeads",
        ),
    ],
)
def test_a_setting_of_what_is_off_or_not_there_is_told(key, value, switch, off, on):
    words = (
        re.escape(f"{key} is {value!r}, but {switch} is {off!r}, which ")
        + f".* or {switch} to {on!r}"
    )
    with pytest.raises(IONError, match=words):
        build_model(small_config(key, value, switch, off))
    small_model(key, value, switch, on)


@pytest.mark.parametrize(
    ("key", "value", "name", "able"),
    [
        ("MODEL.TIMM.NAME", "resnet18", "build_ion_vgg_backbone", "build_timm_backbone"),
        ("MODEL.TIMM.WEIGHTS", "timm", "build_resnet_backbone", "build_timm_backbone"),
        ("MODEL.VGG.DEPTH", 19, "build_resnet_backbone", "build_ion_vgg_backbone"),
    ],
)
@pytest.mark.parametrize("part", ["MODEL.BACKBONE.NAME", f"{CONTEXT}.BOTTOM_UP"])
def test_a_network_that_the_backbone_is_not_is_told(key, value, name, able, part):
    words = f"{key} is {value!r}, but {part} is {name!r}, which would .* or {part} to {able!r}"
    with pytest.raises(IONError, match=words):
        build_model(small_config(key, value, part, name))


@pytest.mark.parametrize(
    ("key", "value", "part", "name", "able"),
    [
        ("SKIP_POOLER.NORM", "channel", "ROI_HEADS.NAME", "StandardROIHeads", "IONROIHeads"),
        ("SKIP_POOLER.CONTEXT_GAIN", 0.0, "ROI_HEADS.IN_FEATURES", ["conv5"], ["context"]),
        ("CONTEXT.NAME", "Conv", "BACKBONE.NAME", "build_ion_vgg_backbone",
         "build_ion_context_backbone"),
        ("VGG.OUT_FEATURES", ["conv5"], "CONTEXT.BOTTOM_UP", "build_resnet_backbone",
         "build_ion_vgg_backbone"),
        ("TIMM.OUTPUT_STRIDE", 16, "CONTEXT.BOTTOM_UP", "build_resnet_backbone",
         "build_timm_fpn_backbone"),
    ],
)  # fmt: skip
def test_an_override_for_a_part_that_is_not_there_is_told(caplog, key, value, part, name, able):
    config = "configs/ion_tiny.yaml"
    key, part = f"MODEL.{key}", f"MODEL.{part}"
    load_config(config, [key, value, part, able])
    load_config(config, [part, name])
    assert not caplog.messages
    load_config(config, [key, value, part, name])
    assert caplog.messages == [f"{key} has no effect on this model, whose {part} is {name!r}"]


def test_an_override_that_lacks_two_parts_is_told_once(caplog):
    heads, key = "MODEL.ROI_HEADS.NAME", "MODEL.SKIP_POOLER.CONTEXT_GAIN"
    plain = ["MODEL.ROI_HEADS.IN_FEATURES", ["conv5"], heads, "StandardROIHeads"]
    load_config("configs/ion_tiny.yaml", [*plain, key, 0.0])
    assert caplog.messages == [
        f"{key} has no effect on this model, whose {heads} is 'StandardROIHeads'"
    ]


def test_a_backbone_of_ones_own_may_read_any_network(monkeypatch):
    def build_mine(cfg, input_shape):
        return build_ion_vgg_backbone(cfg, input_shape)

    monkeypatch.setitem(BACKBONE_REGISTRY._obj_map, "build_mine", build_mine)
    small_model("MODEL.TIMM.NAME", "resnet18", f"{CONTEXT}.BOTTOM_UP", "build_mine")


def test_context_that_retinanet_does_not_read_is_told():
    with pytest.raises(IONError, match="nothing reads its context: .*MODEL.RETINANET.IN_FEATURES"):
        small_model(*RETINANET, "['conv5']")
    small_model(*RETINANET, "['conv5', 'context']")


CASCADE = ("MODEL.ROI_HEADS.NAME", "IONCascadeROIHeads", f"{HEAD}.NAME", "FastRCNNConvFCHead",
           f"{HEAD}.NUM_FC", 2)  # fmt: skip
AGNOSTIC = (f"{HEAD}.CLS_AGNOSTIC_BBOX_REG", True)
IOUS = "MODEL.ROI_BOX_CASCADE_HEAD.IOUS"


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        ((), f"refine one box for all classes; set {HEAD}.CLS_AGNOSTIC_BBOX_REG to True"),
        ((*AGNOSTIC, IOUS, (0.5, 0.6)), f"{IOUS} is .*3 stages"),
        ((*AGNOSTIC, IOUS, (0.4, 0.6, 0.7)), rf"{IOUS} is .*IOU_THRESHOLDS \(0.5\)"),
    ],
)
def test_what_a_cascade_needs_is_told(opts, words):
    with pytest.raises(IONError, match=words):
        build_model(small_config(*CASCADE, *opts))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (AssertionError("Please use sigmoid\ncross entropy loss"), "Please"),
        (AttributeError("Attribute 'x' does not exist in the metadata of dataset 'voc:a:b'"),
         "Attribute 'x'"),
        (AssertionError(), None),
        (AttributeError("no attribute 'x'"), None),
    ],
)  # fmt: skip
def test_what_detectron2_asserts_of_a_config_is_one_sentence_and_other_faults_stay(
    monkeypatch, error, words
):
    def fail(cfg):
        raise error

    monkeypatch.setattr("detectron2.modeling.build_model", fail)
    expected = IONError if words else type(error)
    with pytest.raises(expected, match=words and f"config cannot be built: {words}") as told:
        build_model(small_config())
    assert (told.value.__cause__ if words else told.value) is error


@pytest.mark.parametrize("key", ["TEST.LOSS", "TEST.AUG.ENABLED"])
def test_what_needs_an_r_cnn_is_told_before_the_training(key):
    opts = (*RETINANET, "['context']", key, True)
    with pytest.raises(IONError, match=f"{key} is True, but .* is 'RetinaNet'"):
        build_model(small_config(*opts))


@pytest.mark.parametrize("file", ["fpn", "dc5"])
def test_a_base_of_plugged_models_alone_is_no_model(file):
    """It needs Detectron2's base beside it, and says so."""
    cfg = load_config(f"configs/plug/{file}.yaml")
    told = "FPN.IN_FEATURES is empty.*'fpn.yaml' and one" if file == "fpn" else "ROI_BOX_HEAD"
    with pytest.raises(IONError, match=told):
        build_model(cfg)


def test_a_gain_of_context_alone_that_is_not_merged_is_told():
    opts = ("MODEL.ROI_HEADS.IN_FEATURES", ["context"], "MODEL.SKIP_POOLER.NORM", "none",
            "MODEL.SKIP_POOLER.OUT_CHANNELS", 64, f"{CONTEXT}.OUT_DIM", 64)  # fmt: skip
    small_model(*opts)
    with pytest.raises(IONError, match="CONTEXT_GAIN is 0.5, but context alone .*set it to 1"):
        build_model(small_config(*opts, "MODEL.SKIP_POOLER.CONTEXT_GAIN", 0.5))
