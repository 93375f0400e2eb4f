"""Detectron2's own checkpointer loads torchvision's VGG: into ION as it is, else once converted."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from cli_helpers import says
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.engine import DefaultPredictor
from model_helpers import small_config
from torch import nn

from ion_d2.engine.setup import build_model, run_cli

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "tools"), str(ROOT / "tests" / "modeling")]
import convert_vgg  # noqa: E402
from vgg_models import published, randomize  # noqa: E402

pytestmark = pytest.mark.slow

VGG = (
    "MODEL.VGG.DEPTH", 11, "MODEL.VGG.WIDTH_MULTIPLIER", 1.0, "MODEL.SKIP_POOLER.OUT_CHANNELS", 512,
    "MODEL.ROI_BOX_HEAD.FC_DIM", 8, "MODEL.WEIGHTS", "",
)  # fmt: skip
PLAIN = (
    "MODEL.BACKBONE.NAME", "build_ion_vgg_backbone", "MODEL.RPN.IN_FEATURES", "['conv5']",
    "MODEL.ROI_HEADS.IN_FEATURES", "['conv5']", "MODEL.ROI_HEADS.NAME", "StandardROIHeads",
)  # fmt: skip
BOXES = ("MODEL.ROI_BOX_HEAD.NAME", "FastRCNNConvFCHead", "MODEL.ROI_BOX_HEAD.NUM_FC", 2)
LABELS = (
    "MODEL.SEM_SEG_HEAD.NAME", "SemSegFPNHead",
    "MODEL.SEM_SEG_HEAD.IN_FEATURES", "['conv3', 'conv4', 'conv5']",
)  # fmt: skip
OTHERS = {
    "GeneralizedRCNN": BOXES,
    "RetinaNet": ("MODEL.RETINANET.IN_FEATURES", "['conv4', 'conv5']"),
    "SemanticSegmentor": LABELS,
    "PanopticFPN": (*LABELS, *BOXES),
}


def classifier(width):
    """fc6 and fc7 of that width, where torchvision's has 4096."""
    layers = [nn.Linear(512 * 49, width), nn.ReLU(), nn.Dropout(), nn.Linear(width, width)]
    layers = nn.Sequential(*layers, nn.ReLU(), nn.Dropout(), nn.Linear(width, 10))
    randomize(layers)
    return layers


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "batch_norm"])
def theirs(request):
    torch.manual_seed(0)
    return published(11, batch_norm=request.param, classifier=classifier(8))


def config(theirs, *opts):
    norm = "BN" if isinstance(theirs.features[1], nn.BatchNorm2d) else ""
    opts = (*VGG, "MODEL.VGG.NORM", norm, *opts)
    return small_config(*opts, config_file="configs/Base-ION-VGG16.yaml")


def assert_backbone(model, theirs):
    """Equal features for an image, which hold every convolution and what normalizes it."""
    backbone = model.eval().backbone
    image = torch.rand(1, 3, 40, 48) * 4 - 2
    with torch.no_grad():
        got = getattr(backbone, "bottom_up", backbone)(image)["conv5"]
        expected = theirs.features[:-1](image)
    assert expected.abs().max() > 0.1
    assert (got - expected).abs().max() <= 1e-4 * expected.abs().max()


def assert_fc(model, theirs, names):
    for name, index in zip(names, (0, 3)):
        layer = getattr(model.roi_heads.box_head, name)
        assert torch.equal(layer.weight, theirs.classifier[index].weight)
        assert torch.equal(layer.bias, theirs.classifier[index].bias)


@pytest.mark.parametrize(
    "pack",
    [
        lambda state: state,
        lambda state: {"model": state, "epoch": 3},
        lambda state: {f"module.{key}": value for key, value in state.items()},
    ],
    ids=["bare", "model", "module"],
)
@pytest.mark.parametrize("head", ["IONBoxHead", "FastRCNNConvFCHead"])
def test_ion_loads_their_file_by_detectron2(head, pack, theirs, tmp_path, caplog):
    path = str(tmp_path / "vgg.pth")
    torch.save(pack(theirs.state_dict()), path)
    layers = ("MODEL.ROI_BOX_HEAD.NAME", head, "MODEL.ROI_BOX_HEAD.NUM_FC", 2)
    cfg = config(theirs, *layers, "MODEL.WEIGHTS", path)
    caplog.clear()
    model = DefaultPredictor(cfg).model
    assert_backbone(model, theirs)
    assert_fc(model, theirs, ("fc6", "fc7") if head == "IONBoxHead" else ("fc1", "fc2"))
    # What is told to be missing is missing, and no more.
    assert "backbone.context" in caplog.text
    assert not any(word in caplog.text for word in ("bottom_up", "features.", "classifier"))


def test_ion_loads_their_state_dict_by_hand(theirs):
    model = build_model(config(theirs))
    state = theirs.state_dict()
    before = list(state)
    found = model.load_state_dict(state, strict=False)
    assert list(state) == before and not found.unexpected_keys
    assert not any("bottom_up" in key or "fc6" in key for key in found.missing_keys)
    assert "roi_heads.box_predictor.cls_score.weight" in found.missing_keys
    assert_backbone(model, theirs)


@pytest.fixture
def converted(theirs, tmp_path, monkeypatch):
    source, target = str(tmp_path / "vgg.pth"), str(tmp_path / "vgg.pkl")
    torch.save({"state_dict": theirs.state_dict(), "epoch": 3}, source)
    monkeypatch.setattr(sys, "argv", ["convert_vgg.py", source, target])
    convert_vgg.main()
    return target


@pytest.mark.parametrize("name", OTHERS)
def test_another_meta_architecture_loads_the_converted_file(name, theirs, converted):
    model = build_model(config(theirs, *PLAIN, "MODEL.META_ARCHITECTURE", name, *OTHERS[name]))
    DetectionCheckpointer(model).load(converted)
    assert_backbone(model, theirs)
    if hasattr(model, "roi_heads"):
        assert_fc(model, theirs, ("fc1", "fc2"))


def test_the_converted_file_fits_ion_as_well(theirs, converted):
    model = DefaultPredictor(config(theirs, "MODEL.WEIGHTS", converted)).model
    assert_backbone(model, theirs)
    assert_fc(model, theirs, ("fc6", "fc7"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "vgg.pth is no file (No such file or directory)"),
        (b"no checkpoint", "is not a readable checkpoint"),
        ({"weight": torch.zeros(1)}, "holds no VGG of torchvision's"),
        ([1, 2], "holds a list where a dict of tensors"),
        ({"model": [1]}, "holds a list where a dict of tensors"),
        (torch.zeros(2), "holds a Tensor where a dict of tensors"),
        ({1: torch.zeros(2)}, "under 1 where a dict of tensors"),
        ({"features.0.weight": 3}, "holds a int under 'features.0.weight'"),
    ],
)
def test_what_is_no_vgg_is_told(content, words, tmp_path, monkeypatch, capsys):
    source = tmp_path / "vgg.pth"
    if isinstance(content, bytes):
        source.write_bytes(content)
    elif content is not None:
        torch.save(content, source)
    monkeypatch.setattr(sys, "argv", ["convert_vgg.py", str(source), str(tmp_path / "vgg.pkl")])
    with pytest.raises(SystemExit) as stop:
        run_cli(convert_vgg.main)
    assert says((stop.value.code, *capsys.readouterr()), words)
    assert not (tmp_path / "vgg.pkl").exists()
