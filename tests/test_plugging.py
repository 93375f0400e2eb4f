"""Switching ION on in configs of Detectron2, and the YAML files that do so."""

from pathlib import Path

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model as build_plain_model
from detectron2.utils.events import EventStorage
from model_helpers import make_input

import ion_d2
from ion_d2.engine.checkpoint import IONCheckpointer
from ion_d2.engine.setup import build_model, load_config
from ion_d2.errors import IONError

pytestmark = pytest.mark.slow

FILES = sorted(Path(__file__).parent.parent.glob("configs/plug/*_*.yaml"))
SMALL = {
    "MODEL.DEVICE": "cpu", "MODEL.WEIGHTS": "", "MODEL.RESNETS.STEM_OUT_CHANNELS": 16,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 32, "MODEL.RESNETS.WIDTH_PER_GROUP": 8,
    "MODEL.FPN.OUT_CHANNELS": 32, "MODEL.ROI_BOX_HEAD.FC_DIM": 32,
}  # fmt: skip
CONTEXT = {"MODEL.CONTEXT.HIDDEN_DIM": 16, "MODEL.CONTEXT.OUT_DIM": 16}
# The six keys of which every family needs a value of its own or ION's.
SWITCHES = {
    "MODEL.META_ARCHITECTURE", "MODEL.BACKBONE.NAME", "MODEL.CONTEXT.BOTTOM_UP",
    "MODEL.CONTEXT.IN_FEATURE", "MODEL.ROI_HEADS.NAME", "MODEL.ROI_HEADS.IN_FEATURES",
}  # fmt: skip


def zoo(name):
    return f"model_zoo:COCO-Detection/{name}.yaml"


def train_step(model):
    with EventStorage():
        losses = model.train()([make_input(64, 96, boxes=1)])
    sum(losses.values()).backward()
    return losses


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_shipped_files_do_what_plug_in_does(path):
    (base,) = [w for w in path.read_text().split('"') if w.startswith("model_zoo:")]
    expected = ion_d2.get_config(base, {"OUTPUT_DIR": f"./output/plug/{path.stem}"}, plug_in=True)
    got = ion_d2.get_config(path)
    if "C4" in path.stem:  # the one key that such a config does not use
        expected.defrost()
        expected.MODEL.SKIP_POOLER.OUT_CHANNELS = got.MODEL.SKIP_POOLER.OUT_CHANNELS
    assert got.dump() == expected.dump()


@pytest.mark.parametrize(
    ("name", "feature", "heads"),
    [
        ("faster_rcnn_R_50_FPN_1x", "p5", "IONROIHeads"),
        ("faster_rcnn_R_50_C4_1x", "res4", "IONRes5ROIHeads"),
        ("faster_rcnn_R_50_DC5_1x", "res5", "IONROIHeads"),
    ],
)
def test_six_overrides_are_enough(name, feature, heads):
    cfg = ion_d2.get_config(zoo(name))
    features = [*cfg.MODEL.ROI_HEADS.IN_FEATURES, "context"]
    six = {
        "MODEL.META_ARCHITECTURE": "ION", "MODEL.BACKBONE.NAME": "build_ion_context_backbone",
        "MODEL.CONTEXT.BOTTOM_UP": cfg.MODEL.BACKBONE.NAME, "MODEL.CONTEXT.IN_FEATURE": feature,
        "MODEL.ROI_HEADS.NAME": heads, "MODEL.ROI_HEADS.IN_FEATURES": features,
    }  # fmt: skip
    assert six.keys() == SWITCHES
    model = ion_d2.build_model(ion_d2.get_config(zoo(name), {**six, **SMALL, **CONTEXT}))
    train_step(model)
    for key, parameter in model.named_parameters():
        assert not parameter.requires_grad or parameter.grad is not None, key


def test_plug_in_tells_what_it_set():
    cfg = get_cfg()
    ion_d2.add_ion_config(cfg)
    cfg.MODEL.ROI_HEADS.IN_FEATURES = ["res5"]
    cfg.MODEL.ROI_HEADS.NAME = "StandardROIHeads"
    told = ion_d2.plug_in(cfg)
    assert SWITCHES < told.keys()
    assert told["MODEL.RESNETS.OUT_FEATURES"] == ["res2", "res3", "res4", "res5"]
    assert told["MODEL.SKIP_POOLER.OUT_CHANNELS"] == 2048  # of ResNet's res5
    for key, value in told.items():
        node = cfg
        for part in key.split("."):
            node = node[part]
        assert node == value


def test_context_from_another_level_of_the_pyramid():
    more = {**SMALL, **CONTEXT, "MODEL.CONTEXT.IN_FEATURE": "p3"}
    cfg = ion_d2.get_config(zoo("faster_rcnn_R_50_FPN_1x"), more, plug_in=True)
    model = ion_d2.build_model(cfg)
    assert model.backbone.output_shape()["context"].stride == 8
    poolers = model.roi_heads.box_pooler.level_poolers
    assert [p.level_poolers[0].spatial_scale for p in poolers] == [
        1 / 4,
        1 / 8,
        1 / 16,
        1 / 32,
        1 / 8,
    ]
    train_step(model)


def test_weights_of_the_plain_model_fit(tmp_path):
    """Of a checkpoint without ION, everything but the new parts is taken over."""
    path = zoo("faster_rcnn_R_50_FPN_1x")
    more = {**SMALL, "MODEL.SKIP_POOLER.OUT_CHANNELS": 32}
    torch.manual_seed(0)
    plain = build_plain_model(ion_d2.get_config(path, more))
    torch.save({"model": plain.state_dict()}, tmp_path / "plain.pth")
    torch.manual_seed(1)
    model = ion_d2.build_model(ion_d2.get_config(path, {**more, **CONTEXT}, plug_in=True))
    IONCheckpointer(model).load(str(tmp_path / "plain.pth"))
    state = model.state_dict()
    theirs = plain.state_dict()
    for key, value in theirs.items():
        key = key.replace("backbone.", "backbone.bottom_up.", 1)
        assert torch.equal(state.pop(key), value), key
    assert {".".join(key.split(".")[:2]) for key in state} == {
        "backbone.context",
        "roi_heads.box_pooler",
    }


def test_own_checkpoints_load_as_before(tmp_path):
    cfg = ion_d2.get_config(zoo("faster_rcnn_R_50_FPN_1x"), {**SMALL, **CONTEXT}, plug_in=True)
    first, second = ion_d2.build_model(cfg), ion_d2.build_model(cfg)
    assert second.load_state_dict(first.state_dict()).missing_keys == []
    for key, value in second.state_dict().items():
        assert torch.equal(value, first.state_dict()[key])


def test_heads_keep_their_shapes_on_a_backbone_of_any_kind():
    """This one has neither ResNet's names for its features nor an FPN's width."""
    vgg = {"MODEL.BACKBONE.NAME": "build_ion_vgg_backbone", "MODEL.VGG.WIDTH_MULTIPLIER": 0.25,
           "MODEL.ROI_HEADS.IN_FEATURES": ["conv5"], "MODEL.RPN.IN_FEATURES": ["conv5"],
           "MODEL.ROI_HEADS.NAME": "StandardROIHeads", "MODEL.ROI_BOX_HEAD.NAME": "IONBoxHead",
           "MODEL.ROI_BOX_HEAD.FC_DIM": 32, "MODEL.DEVICE": "cpu"}  # fmt: skip
    zoo_config = zoo("faster_rcnn_R_50_C4_1x")
    plain, plugged = (
        ion_d2.build_model(ion_d2.get_config(zoo_config, vgg, plug_in=on)).state_dict()
        for on in (False, True)
    )
    heads = [key for key in plain if key.startswith("roi_heads")]
    assert heads
    for key in heads:
        assert plain[key].shape == plugged[key].shape, key


def test_the_segmentation_loss_is_one_key_away():
    seg = {**SMALL, **CONTEXT, "MODEL.SEG_REGULARIZER_ON": True,
           "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 4}  # fmt: skip
    for name in ("faster_rcnn_R_50_FPN_1x", "faster_rcnn_R_50_C4_1x"):
        model = ion_d2.build_model(ion_d2.get_config(zoo(name), seg, plug_in=True)).train()
        with EventStorage():
            losses = model([make_input(64, 96, boxes=1, labels=True)])
        assert 0 < losses["loss_sem_seg"] < 5, name


@pytest.mark.parametrize(
    ("base", "overrides", "words"),
    [
        ("retinanet_R_50_FPN_1x", {}, "MODEL.META_ARCHITECTURE is 'RetinaNet'.*GeneralizedRCNN"),
        ("rpn_R_50_FPN_1x", {}, "MODEL.META_ARCHITECTURE is 'ProposalNetwork'"),
    ],
)
def test_configs_without_roi_heads_are_refused(base, overrides, words):
    with pytest.raises(IONError, match=words):
        ion_d2.get_config(zoo(base), overrides, plug_in=True)


def test_rotated_boxes_and_unknown_heads_are_refused():
    cfg = get_cfg()
    ion_d2.add_ion_config(cfg)
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = "RRPN"
    with pytest.raises(IONError, match="MODEL.PROPOSAL_GENERATOR.NAME is 'RRPN'.*rotated"):
        ion_d2.plug_in(cfg)
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = "RPN"
    ion_d2.plug_in(cfg)
    with pytest.raises(IONError, match="MODEL.META_ARCHITECTURE is 'ION'"):
        ion_d2.plug_in(cfg)
    cfg.MODEL.META_ARCHITECTURE = "GeneralizedRCNN"
    with pytest.raises(IONError, match="MODEL.ROI_HEADS.NAME is 'IONRes5ROIHeads'"):
        ion_d2.plug_in(cfg)


@pytest.mark.parametrize(
    ("base", "opts", "words"),
    [
        # Detectron2 would build a RetinaNet and ignore the heads without a word.
        (
            "retinanet_R_50_FPN_1x",
            ["MODEL.ROI_HEADS.NAME", "IONROIHeads"],
            "MODEL.META_ARCHITECTURE is 'RetinaNet', which has no ROI heads",
        ),
        (
            "retinanet_R_50_FPN_1x",
            ["MODEL.META_ARCHITECTURE", "ION", "MODEL.ROI_HEADS.NAME", "IONROIHeads"],
            "MODEL.RPN.IN_FEATURES names 'res4', but the backbone returns only p3, p4, p5, p6, p7",
        ),
        (
            "faster_rcnn_R_50_FPN_1x",
            ["MODEL.BACKBONE.NAME", "build_ion_context_backbone", "MODEL.CONTEXT.BOTTOM_UP",
             "build_resnet_fpn_backbone", "MODEL.CONTEXT.IN_FEATURE", "res9"],
            "MODEL.CONTEXT.IN_FEATURE is 'res9', but the backbone returns only p2, p3, p4, p5, p6",
        ),
        (
            "faster_rcnn_R_50_FPN_1x",
            ["MODEL.BACKBONE.NAME", "build_ion_context_backbone", "MODEL.CONTEXT.BOTTOM_UP",
             "build_ion_context_backbone", "MODEL.CONTEXT.IN_FEATURE", "p5"],
            "MODEL.CONTEXT.BOTTOM_UP is 'build_ion_context_backbone'",
        ),
        # These would train or test a model without what they ask for.
        (
            "faster_rcnn_R_50_FPN_1x",
            ["MODEL.SEG_REGULARIZER_ON", "True"],
            "MODEL.SEG_REGULARIZER_ON is True, but MODEL.META_ARCHITECTURE is 'GeneralizedRCNN'",
        ),
        (
            "faster_rcnn_R_50_FPN_1x",
            ["TEST.FLIP_AVERAGING", "True"],
            "TEST.FLIP_AVERAGING is True, but MODEL.META_ARCHITECTURE is 'GeneralizedRCNN'",
        ),
        (
            "faster_rcnn_R_50_FPN_1x",
            ["TEST.BOX_REFINEMENT.ENABLED", "True"],
            "TEST.BOX_REFINEMENT.ENABLED is True, but MODEL.ROI_HEADS.NAME is 'StandardROIHeads'",
        ),
        (
            "faster_rcnn_R_50_FPN_1x",
            ["MODEL.META_ARCHITECTURE", "ION", "MODEL.SEG_REGULARIZER_ON", "True"],
            "MODEL.SEG_REGULARIZER_ON is True, but MODEL.SEM_SEG_HEAD.NAME is 'SemSegFPNHead'",
        ),
    ],
)  # fmt: skip
def test_wrong_configs_are_told_by_their_key(base, opts, words):
    small = [item for pair in SMALL.items() for item in pair]
    with pytest.raises(IONError, match=words) as error:
        build_model(load_config(zoo(base), [*small, *opts]))
    assert "\n" not in str(error.value)
