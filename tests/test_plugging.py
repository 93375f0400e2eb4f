"""Switching ION on in configs of Detectron2, and the YAML files that do so."""

import functools
from pathlib import Path

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from detectron2.modeling import build_model as build_plain_model
from model_helpers import losses_of, make_input, train_step

import ion_d2
from ion_d2.engine.checkpoint import IONCheckpointer
from ion_d2.engine.setup import build_model, load_config
from ion_d2.errors import IONError
from ion_d2.modeling import SkipPooler

pytestmark = pytest.mark.slow

FILES = sorted(Path(__file__).parent.parent.glob("configs/plug/*_*.yaml"))
SMALL = {
    "MODEL.DEVICE": "cpu", "MODEL.WEIGHTS": "", "MODEL.RESNETS.STEM_OUT_CHANNELS": 16,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 32, "MODEL.RESNETS.WIDTH_PER_GROUP": 8,
    "MODEL.FPN.OUT_CHANNELS": 32, "MODEL.ROI_BOX_HEAD.FC_DIM": 32,
}  # fmt: skip
CONTEXT = {"MODEL.CONTEXT.HIDDEN_DIM": 16}
# The six keys of which every family needs a value of its own or ION's.
SWITCHES = {
    "MODEL.META_ARCHITECTURE", "MODEL.BACKBONE.NAME", "MODEL.CONTEXT.BOTTOM_UP",
    "MODEL.CONTEXT.IN_FEATURE", "MODEL.ROI_HEADS.NAME", "MODEL.ROI_HEADS.IN_FEATURES",
}  # fmt: skip


def zoo(name):
    return f"model_zoo:COCO-Detection/{name}.yaml"


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
    train_step(model, make_input(64, 96, boxes=1))


def test_plug_in_tells_what_it_set():
    cfg = get_cfg()
    ion_d2.add_ion_config(cfg)
    cfg.MODEL.ROI_HEADS.IN_FEATURES = ["res5"]
    cfg.MODEL.ROI_HEADS.NAME = "StandardROIHeads"
    told = ion_d2.plug_in(cfg)
    assert SWITCHES < told.keys()
    assert told["MODEL.RESNETS.OUT_FEATURES"] == ["res2", "res3", "res4", "res5"]
    assert told["MODEL.SKIP_POOLER.OUT_CHANNELS"] == 2048  # of ResNet's res5
    # A stage that the RPN reads stays.
    deeper = ion_d2.get_config(zoo("faster_rcnn_R_50_C4_1x"))
    deeper.defrost()
    deeper.MODEL.RESNETS.OUT_FEATURES = ["res4", "res5"]
    stages = ion_d2.plug_in(deeper)["MODEL.RESNETS.OUT_FEATURES"]
    assert stages == ["res2", "res3", "res4", "res5"]
    for key, value in told.items():
        assert functools.reduce(lambda node, part: node[part], key.split("."), cfg) == value


def test_a_frozen_config_stays_as_it_is():
    cfg = get_cfg()
    cfg.freeze()
    with pytest.raises(IONError, match="frozen.*defrost"):
        ion_d2.plug_in(cfg)


def test_a_config_of_detectron2_needs_no_keys_before():
    cfg = get_cfg()
    assert ion_d2.plug_in(cfg)["MODEL.CONTEXT.IN_FEATURE"] == "res4" and "TIMM" in cfg.MODEL


def test_stages_that_the_backbone_does_not_return_are_not_pooled():
    """Named like those of a ResNet or of timm, in any order."""
    for name in ("res4", "stage4"):
        opts = {"MODEL.BACKBONE.NAME": "build_one_stage", "MODEL.DEVICE": "cpu",
                "MODEL.ROI_HEADS.NAME": "StandardROIHeads",
                "MODEL.ROI_BOX_HEAD.NAME": "IONBoxHead", "MODEL.ROI_BOX_HEAD.FC_DIM": 8,
                "MODEL.ROI_HEADS.IN_FEATURES": [name], "MODEL.RPN.IN_FEATURES": [name],
                "MODEL.TIMM.OUT_FEATURES": ["stage4", "stage2", "stage3"],
                "MODEL.WEIGHTS": ""}  # fmt: skip
        cfg = ion_d2.get_config(zoo("faster_rcnn_R_50_C4_1x"), opts)
        cfg.defrost()
        ion_d2.plug_in(cfg)
        assert cfg.MODEL.ROI_HEADS.IN_FEATURES == [name, "context"]
        train_step(ion_d2.build_model(cfg), make_input(64, 96, boxes=1))


@BACKBONE_REGISTRY.register()
def build_one_stage(cfg, input_shape):
    return OneStage(cfg.MODEL.RPN.IN_FEATURES[0])


class OneStage(Backbone):
    def __init__(self, name):
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 8, 16, stride=16)
        self._out_features, self._out_feature_channels = [name], {name: 8}
        self._out_feature_strides = {name: 16}

    def forward(self, x):
        return {self._out_features[0]: self.stem(x)}


def test_the_context_reads_the_deepest_feature_in_whatever_order():
    opts = {**SMALL, "MODEL.ROI_HEADS.IN_FEATURES": ["p5", "p3", "p2"]}
    cfg = ion_d2.get_config(zoo("faster_rcnn_R_50_FPN_1x"), opts)
    cfg.defrost()
    ion_d2.plug_in(cfg)
    assert cfg.MODEL.CONTEXT.IN_FEATURE == "p5"
    assert cfg.MODEL.ROI_HEADS.IN_FEATURES == ["p5", "p3", "p2", "context"]


def test_context_from_another_level_of_the_pyramid():
    more = {**SMALL, **CONTEXT, "MODEL.CONTEXT.IN_FEATURE": "p3"}
    cfg = ion_d2.get_config(zoo("faster_rcnn_R_50_FPN_1x"), more, plug_in=True)
    model = ion_d2.build_model(cfg)
    assert model.backbone.output_shape()["context"].stride == 8
    levels = [p.level_poolers[0] for p in model.roi_heads.box_pooler.level_poolers]
    assert [1 / level.spatial_scale for level in levels] == [4, 8, 16, 32, 8]
    train_step(model, make_input(64, 96, boxes=1))


@pytest.mark.parametrize("name", ["faster_rcnn_R_50_FPN_1x", "faster_rcnn_R_50_DC5_1x"])
def test_it_begins_as_skip_pooling_alone_and_learns_to_use_context(name):
    torch.manual_seed(0)
    model = ion_d2.build_model(ion_d2.get_config(zoo(name), SMALL, plug_in=True))
    inputs = make_input(64, 96, boxes=1)

    def loss():
        torch.manual_seed(1)
        return sum(losses_of(model, inputs).values())

    (pooler,) = (m for m in model.modules() if isinstance(m, SkipPooler))
    pooler.scale.observe = lambda *args: None  # it would measure once more
    before = loss()
    before.backward()
    assert pooler.gate.abs().sum() == 0 and pooler.gate.grad.abs().sum() > 0
    with torch.no_grad():
        model.backbone.context.output.shift.uniform_()
    assert torch.equal(loss(), before)
    with torch.no_grad():
        pooler.gate += 1
    assert not torch.equal(loss(), before)


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
    for key, value in plain.state_dict().items():
        key = key.replace("backbone.", "backbone.bottom_up.", 1)
        assert torch.equal(state.pop(key), value), key
    new = {".".join(key.split(".")[:2]) for key in state}
    assert new == {"backbone.context", "roi_heads.box_pooler"}


def test_a_tensor_of_another_shape_is_left_out(tmp_path, caplog):
    """As Detectron2's checkpointer does with a model of its own."""
    path = zoo("faster_rcnn_R_50_FPN_1x")
    plain = build_plain_model(ion_d2.get_config(path, SMALL))
    torch.save({"model": plain.state_dict()}, tmp_path / "plain.pth")
    wider = {**SMALL, "MODEL.FPN.OUT_CHANNELS": 40}
    model = ion_d2.build_model(ion_d2.get_config(path, {**wider, **CONTEXT}, plug_in=True))
    before = model.backbone.bottom_up.fpn_lateral2.weight.clone()
    DetectionCheckpointer(model).load(str(tmp_path / "plain.pth"))
    stem = "bottom_up.stem.conv1.weight"
    assert torch.equal(
        model.backbone.bottom_up.state_dict()[stem], plain.backbone.state_dict()[stem]
    )
    assert torch.equal(model.backbone.bottom_up.fpn_lateral2.weight, before)
    assert "Left out 'backbone.fpn_lateral2.weight', whose shape is another" in caplog.text


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
    heads = {key: value.shape for key, value in plain.items() if key.startswith("roi_heads")}
    assert heads and heads == {key: plugged[key].shape for key in heads}


def test_the_segmentation_loss_is_one_key_away():
    seg = {**SMALL, **CONTEXT, "MODEL.SEG_REGULARIZER_ON": True,
           "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 4}  # fmt: skip
    for name in ("faster_rcnn_R_50_FPN_1x", "faster_rcnn_R_50_C4_1x"):
        model = ion_d2.build_model(ion_d2.get_config(zoo(name), seg, plug_in=True))
        losses = losses_of(model, make_input(64, 96, boxes=1, labels=True))
        assert 0 < losses["loss_sem_seg"] < 5, name


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("META_ARCHITECTURE", "RetinaNet"),
        ("META_ARCHITECTURE", "ProposalNetwork"),
        ("META_ARCHITECTURE", "ION"),
        ("PROPOSAL_GENERATOR.NAME", "RRPN"),
        ("ROI_HEADS.NAME", "IONRes5ROIHeads"),
    ],
)
def test_where_ion_cannot_be_switched_on_is_told(key, value):
    cfg = get_cfg()
    ion_d2.add_ion_config(cfg)
    cfg.merge_from_list([f"MODEL.{key}", value])
    with pytest.raises(IONError, match=f"MODEL.{key} is '{value}'"):
        ion_d2.plug_in(cfg)


@pytest.mark.parametrize(
    ("base", "opts", "words"),
    [
        # Detectron2 would build a RetinaNet and ignore the heads without a word.
        ("retinanet_R_50", "ROI_HEADS.NAME IONROIHeads", "META_ARCHITECTURE is 'RetinaNet'"),
        ("retinanet_R_50", "META_ARCHITECTURE ION ROI_HEADS.NAME IONROIHeads",
         "RPN.IN_FEATURES names 'res4', but the backbone returns only p3, p4, p5, p6, p7"),
        ("faster_rcnn_R_50", "BACKBONE.NAME build_ion_context_backbone CONTEXT.BOTTOM_UP "
         "build_resnet_fpn_backbone CONTEXT.IN_FEATURE res9",
         "CONTEXT.IN_FEATURE names 'res9', but the backbone returns only p2, p3, p4, p5, p6"),
        ("faster_rcnn_R_50", "BACKBONE.NAME build_ion_context_backbone CONTEXT.BOTTOM_UP "
         "build_ion_context_backbone CONTEXT.IN_FEATURE p5",
         "CONTEXT.BOTTOM_UP is 'build_ion_context_backbone'"),
        ("faster_rcnn_R_50", "SKIP_POOLER.SCALE_INIT 0",
         "SKIP_POOLER.SCALE_INIT is 0, of type int; give one of type float, such as 1000.0"),
        # A block that nothing reads: parameters without gradient, on which distributed ones fail.
        ("faster_rcnn_R_50", "BACKBONE.NAME build_ion_context_backbone CONTEXT.BOTTOM_UP "
         "build_resnet_fpn_backbone CONTEXT.IN_FEATURE p5",
         "nothing reads its context: name 'context' in MODEL.ROI_HEADS.IN_FEATURES or "
         "MODEL.RPN.IN_FEATURES, or set MODEL.BACKBONE.NAME to 'build_resnet_fpn_backbone'"),
        # These would train or test a model without what they ask for.
        ("faster_rcnn_R_50", "SEG_REGULARIZER_ON True",
         "SEG_REGULARIZER_ON is True, but MODEL.META_ARCHITECTURE is 'GeneralizedRCNN'"),
        ("faster_rcnn_R_50", "ROI_BOX_HEAD.CLS_INIT_STD 0.1",
         "CLS_INIT_STD is 0.1, but MODEL.ROI_HEADS.NAME is 'StandardROIHeads'"),
        ("faster_rcnn_R_50", "TEST.FLIP_AVERAGING True",
         "TEST.FLIP_AVERAGING is True, but MODEL.META_ARCHITECTURE is 'GeneralizedRCNN'"),
        ("faster_rcnn_R_50", "TEST.BOX_REFINEMENT.ENABLED True",
         "TEST.BOX_REFINEMENT.ENABLED is True, but MODEL.ROI_HEADS.NAME is 'StandardROIHeads'"),
        ("faster_rcnn_R_50", "META_ARCHITECTURE ION SEG_REGULARIZER_ON True",
         "SEG_REGULARIZER_ON is True, but MODEL.SEM_SEG_HEAD.NAME is 'SemSegFPNHead'"),
    ],
)  # fmt: skip
def test_wrong_configs_are_told_by_their_key(base, opts, words):
    keys, values = opts.split()[::2], opts.split()[1::2]
    full = [key if key.startswith("TEST.") else f"MODEL.{key}" for key in keys]
    opts = [item for pair in [*SMALL.items(), *zip(full, values)] for item in pair]
    with pytest.raises(IONError, match=words):
        build_model(load_config(zoo(f"{base}_FPN_1x"), opts))


def test_a_backbone_with_context_is_told():
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = "build_ion_context_backbone"
    with pytest.raises(IONError, match="MODEL.BACKBONE.NAME is .*a backbone without context"):
        ion_d2.plug_in(cfg)
