"""timm's networks as backbones: features, rest, training, and what is refused."""

import functools
import subprocess
import sys

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from model_helpers import make_input, train_step
from timm_files import LITE, faster_rcnn, saved, timm
from torch import nn

import ion_d2
from ion_d2 import add_ion_config
from ion_d2.engine.stages import Stage, check_backbone
from ion_d2.errors import IONError
from ion_d2.lazy import plug_in_lazy
from ion_d2.modeling.backbone import TimmBackbone
from ion_d2.modeling.backbone.constant_norm import ConstantNorm

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "features", "strides"),
    [
        ("resnet10t", ["stage2", "stage3", "stage5"], [4, 8, 32]),
        ("test_convnext", ["stage1", "stage4"], [4, 32]),
        ("swin_tiny_patch4_window7_224", ["stage1", "stage2"], [4, 8]),
        ("test_vit", ["stage2"], [16]),
        (LITE, ["stage1", "stage5"], [2, 32]),
        ("test_vgg" if timm.is_model("test_vgg") else "vgg11", ["stage2"], [2]),
        ("hrnet_w18_small", ["stage2", "stage5"], [4, 32]),
    ],
)
def test_features_have_the_shapes_that_are_told(name, features, strides):
    backbone = TimmBackbone(name, features[::-1]).eval()
    side = 2 * backbone.size_divisibility
    with torch.no_grad():
        outputs = backbone(torch.rand(1, 3, side, 2 * side))
    assert list(outputs) == features == list(backbone.output_shape())
    for (feature, shape), stride in zip(backbone.output_shape().items(), strides):
        assert shape.stride == stride
        expected = (1, shape.channels, side // stride, 2 * side // stride)
        assert outputs[feature].shape == expected


def test_images_are_padded_to_the_cells_that_a_network_reads_together():
    """MobileViT v2 stretches maps of odd sides to even ones, so that boxes would lie elsewhere."""
    backbone = TimmBackbone("mobilevitv2_050", ["stage4", "stage5"]).eval()
    assert backbone.size_divisibility == 64
    with torch.no_grad():
        sizes = [x.shape[2:] for x in backbone(torch.rand(1, 3, 192, 64)).values()]
    assert sizes == [(12, 4), (6, 2)]


def test_stages_whose_end_is_unknown_cannot_be_frozen():
    with pytest.raises(IONError, match="FREEZE_AT is 2, but where the stages .* set it to 0"):
        TimmBackbone("hrnet_w18_small", ["stage4"], freeze_at=2)
    assert TimmBackbone("hrnet_w18_small", ["stage4"]).num_stages == 0


def changed_by_a_batch(backbone):
    """Names of the tensors that a forward pass in training changes."""
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    backbone(torch.randn(2, 3, 64, 64))
    return {k for k, v in backbone.state_dict().items() if not v.equal(before[k])}


def trained(backbone):
    return {k for k, p in backbone.named_parameters() if p.requires_grad}


def parts(keys):
    return {key.split(".")[1] for key in keys}


def test_frozen_stages_rest_with_their_normalization():
    backbone = TimmBackbone("resnet10t", ["stage2", "stage4"], freeze_at=2, freeze_norm=False)
    assert parts(trained(backbone)) == {"layer2", "layer3"} == parts(changed_by_a_batch(backbone))
    names = {name for name, _ in backbone.named_parameters()}
    assert parts(names - trained(backbone)) == {"conv1", "layer1"}


def test_all_normalization_rests_unless_told_otherwise():
    backbone = TimmBackbone("resnet10t", ["stage3"]).train()
    assert all(p.requires_grad for p in backbone.parameters())
    assert not changed_by_a_batch(backbone)


@pytest.mark.parametrize(
    "layer", [nn.BatchNorm2d, functools.partial(nn.BatchNorm2d, affine=False), "BatchNormAct2d"]
)
def test_resting_normalization_is_timms_in_values_and_names(layer):
    layers = pytest.importorskip("timm.layers")
    norm = (getattr(layers, layer) if isinstance(layer, str) else layer)(5, eps=0.01)
    with torch.no_grad():
        for value in (norm.running_mean, norm.running_var, *norm.parameters()):
            value.uniform_(0.5, 2)
    ours, timms = ConstantNorm(norm), layers.freeze_batch_norm_2d(norm)
    assert list(ours.state_dict()) == list(timms.state_dict())
    x = torch.randn(2, 5, 4, 3, requires_grad=True)
    torch.testing.assert_close(ours(x), timms(x))
    found, expected = (torch.autograd.grad(module(x).square().sum(), x) for module in (ours, timms))
    torch.testing.assert_close(found, expected)
    assert not list(ours.parameters())


@pytest.mark.parametrize("name", ["resnet10t", LITE])
def test_stages_of_a_training_may_wake_blocks(name):
    backbone = TimmBackbone(name, ["stage4"], freeze_at=1, freeze_norm=False).train()
    backbone.rest_blocks(4)
    assert not trained(backbone) and not changed_by_a_batch(backbone)
    backbone.rest_blocks(2)
    awake, changed = trained(backbone), changed_by_a_batch(backbone)
    assert awake and changed
    assert not any(k.startswith(("net.layer1", "net.blocks.1")) for k in awake)
    assert {k.rpartition(".")[0] for k in changed} <= {k.rpartition(".")[0] for k in awake}


def test_a_first_convolution_that_fails_in_another_layout_is_left_in_this_one():
    """PyTorch writes beside its weights' gradient, which mostly ends the process."""
    program = """
import torch
from ion_d2.modeling import TimmBackbone
(feature,) = TimmBackbone("repvgg_a0", ["stage2"]).train()(torch.randn(2, 3, 64, 64)).values()
feature.square().sum().backward()
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_training_in_stages_is_told_how_many_there_are():
    backbone = TimmBackbone("test_convnext", ["stage4"])
    check_backbone(backbone, [Stage(1, 1, 1, 4)], 0)
    with pytest.raises(IONError, match=r"STAGES\[1\].FREEZE_AT is 5, but .* has 4 stages"):
        check_backbone(backbone, [Stage(1, 1, 1, 4), Stage(1, 1, 1, 5)], 0)


def config(file, **keys):
    """ION with context and skip pooling on a network of timm, small."""
    cfg = get_cfg()
    add_ion_config(cfg)
    cfg.merge_from_file("configs/Base-ION-VGG16.yaml")
    values = {
        "MODEL.DEVICE": "cpu", "MODEL.CONTEXT.BOTTOM_UP": "build_timm_backbone",
        "MODEL.TIMM.NAME": LITE, "MODEL.TIMM.WEIGHTS": str(file), "MODEL.TIMM.OUTPUT_STRIDE": 16,
        "MODEL.CONTEXT.IN_FEATURE": "stage5", "MODEL.RPN.IN_FEATURES": ["stage5"],
        "MODEL.ROI_HEADS.IN_FEATURES": ["stage2", "stage3", "stage4", "stage5", "context"],
        "MODEL.BACKBONE.FREEZE_AT": 5, "MODEL.CONTEXT.HIDDEN_DIM": 16,
        "MODEL.CONTEXT.OUT_DIM": 16, "MODEL.SKIP_POOLER.OUT_CHANNELS": 32,
        "MODEL.ROI_BOX_HEAD.FC_DIM": 32, **keys,
    }  # fmt: skip
    cfg.merge_from_list([word for pair in values.items() for word in pair])
    return cfg


def test_context_and_skip_pooling_train_on_a_trunk_at_rest(tmp_path):
    saved(tmp_path / "weights.pth", LITE)
    model = build_model(config(tmp_path / "weights.pth"))
    train_step(model, make_input(96, 128))
    assert not any(key.startswith("backbone.bottom_up") for key in trained(model))


def test_a_checkpoint_of_the_detector_needs_no_file_of_the_backbone(tmp_path):
    build_model(config(tmp_path / "gone.pth", **{"MODEL.WEIGHTS": "model_final.pth"}))


def plugged(name, stages, read, **more):
    """Detectron2's Faster R-CNN whose heads read one of some stages, with ION plugged in."""
    keys = {"MODEL.RPN.IN_FEATURES": [read], "MODEL.ROI_HEADS.IN_FEATURES": [read], **more}
    keys |= {"MODEL.TIMM.NAME": name, "MODEL.TIMM.OUT_FEATURES": stages}
    cfg = faster_rcnn("build_timm_backbone", **keys)
    ion_d2.plug_in(cfg)
    return cfg


def test_plug_in_pools_all_stages_up_to_the_one_of_the_heads(tmp_path):
    saved(tmp_path / "weights.pth", "resnet10t")
    weights = {"MODEL.TIMM.WEIGHTS": str(tmp_path / "weights.pth")}
    cfg = plugged("resnet10t", ["stage2", "stage3", "stage4"], "stage4", **weights)
    assert cfg.MODEL.ROI_HEADS.IN_FEATURES == ["stage2", "stage3", "stage4", "context"]
    train_step(build_model(cfg), make_input(96, 128))


@pytest.mark.parametrize(("read", "count"), [("stage12", 4), ("stage9", 3)])
def test_stages_are_ordered_by_their_numbers(read, count):
    """As text, stage12 would come before stage3."""
    stages = ["stage3", "stage6", "stage9", "stage12"]
    cfg = plugged("vit_tiny_patch16_224", stages, read, **{"MODEL.BACKBONE.FREEZE_AT": 0})
    assert cfg.MODEL.ROI_HEADS.IN_FEATURES == [*stages[:count], "context"]
    assert cfg.MODEL.CONTEXT.IN_FEATURE == read


def test_plug_in_lazy_takes_it():
    from detectron2 import model_zoo
    from detectron2.config import LazyCall, instantiate

    model = model_zoo.get_config("common/models/mask_rcnn_fpn.py").model
    stages = ["stage2", "stage3", "stage4", "stage5"]
    model.backbone.bottom_up = LazyCall(TimmBackbone)(name="resnet10t", out_features=stages)
    model.backbone.in_features = stages
    plug_in_lazy(model, context={"hidden_dim": 16})
    assert "context" in instantiate(model.backbone).output_shape()


@pytest.mark.parametrize(
    ("name", "keys", "words"),
    [
        ("resnet5", {}, "MODEL.TIMM.NAME is 'resnet5'.* resnet50"),
        (3, {}, "MODEL.TIMM.NAME is 3"),
        ("resnet18.a99", {}, r"MODEL.TIMM.NAME 'resnet18.a99' cannot be a backbone \(.*a99"),
        ("mixer_s16_224", {}, "MODEL.TIMM.NAME 'mixer_s16_224' cannot be a backbone"),
        ("resnet10t", {"out_features": ["stage6"]}, "has 5 stages, of strides 2, 4, 8, 16, 32"),
        ("resnet10t", {"out_features": ["res2"]}, "names 'res2'.*'stage1', 'stage2'"),
        ("resnet10t", {"output_stride": 12}, "MODEL.TIMM.OUTPUT_STRIDE 12;"),
        ("resnet10t", {"output_stride": 2}, "MODEL.TIMM.OUTPUT_STRIDE 2;"),
        ("vgg11", {"output_stride": 8}, "MODEL.TIMM.OUTPUT_STRIDE 8;"),
        (
            "inception_v3",
            {"out_features": ["stage2"]},
            r"'inception_v3' cannot be .* stage2 \(stage2 has 13 x 29 cells of .* 68 x 132 pixels",
        ),
        ("halonet26t", {"out_features": ["stage4"]}, r"'halonet26t' cannot be .*AssertionError"),
        (LITE, {"output_stride": -16}, "MODEL.TIMM.OUTPUT_STRIDE -16;"),
        ("resnet10t", {"freeze_at": 4}, "MODEL.BACKBONE.FREEZE_AT is 4.*stage3.*0 .* to 3"),
        ("resnet10t", {"weights": "package://no_such/x.pth"}, "No module named 'no_such'"),
    ],
)
def test_settings_that_cannot_be_are_told(name, keys, words):
    with pytest.raises(IONError, match=words):
        TimmBackbone(name, **{"out_features": ["stage3"], **keys})


def test_timm_absent_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(IONError, match="pip install timm"):
        TimmBackbone("resnet10t", ["stage3"])


def test_pixels_of_another_training_are_warned_of(tmp_path, caplog):
    saved(tmp_path / "weights.pth", LITE)
    own = {"MODEL.PIXEL_MEAN": [127.0] * 3, "MODEL.PIXEL_STD": [128.0] * 3}
    build_model(config(tmp_path / "weights.pth", **own))
    assert "PIXEL_MEAN" not in caplog.text
    build_model(config(tmp_path / "weights.pth", **own, **{"INPUT.FORMAT": "BGR"}))
    assert "INPUT.FORMAT is BGR" in caplog.text
