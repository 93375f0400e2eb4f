"""The worked examples of docs/PLUG_IN.md build detectors that train."""

import re
from pathlib import Path

import pytest
import torch
from detectron2.layers import Conv2d, ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY, StandardROIHeads
from detectron2.structures import Keypoints
from model_helpers import make_input, train_step

from ion_d2.engine.setup import build_model, load_config
from ion_d2.modeling import SkipPooling

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "PLUG_IN.md").read_text(encoding="utf-8")
FAST = ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.ROI_BOX_HEAD.FC_DIM", 32,
        "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 8]  # fmt: skip


def block(kind, word):
    (found,) = [b for b in re.findall(rf"```{kind}\n(.*?)```", TEXT, re.DOTALL) if word in b]
    return found


def train_with_keypoints(model):
    inputs = make_input(64, 96, boxes=1)
    inputs["instances"].gt_keypoints = Keypoints(torch.full((1, 17, 3), 20.0))
    return train_step(model, inputs)


class MyBackbone(Backbone):
    """Two strided convolutions."""

    def __init__(self):
        super().__init__()
        self.first, self.second = Conv2d(3, 8, 8, stride=8), Conv2d(8, 12, 2, stride=2)
        self._out_features = ["s8", "s16"]
        self._out_feature_channels = {"s8": 8, "s16": 12}
        self._out_feature_strides = {"s8": 8, "s16": 16}

    def forward(self, x):
        first = self.first(x)
        return {"s8": first, "s16": self.second(first)}


def test_context_from_a_finer_level(tmp_path):
    text = block("yaml", "keypoint_rcnn").replace('"fpn.yaml"', f'"{ROOT}/configs/plug/fpn.yaml"')
    (tmp_path / "a.yaml").write_text(text)
    narrow = ["MODEL.RESNETS.RES2_OUT_CHANNELS", 32, "MODEL.RESNETS.WIDTH_PER_GROUP", 8,
              "MODEL.FPN.OUT_CHANNELS", 32, "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", (16,)]  # fmt: skip
    model = build_model(load_config(str(tmp_path / "a.yaml"), [*FAST, *narrow]))
    assert model.backbone.output_shape()["context"] == ShapeSpec(channels=32, stride=16)
    assert "loss_keypoint" in train_with_keypoints(model)


def test_a_pyramid_over_a_network_of_timm(tmp_path):
    pytest.importorskip("timm")
    text = block("yaml", "build_timm_fpn_backbone")
    (tmp_path / "a.yaml").write_text(text.replace('"fpn.yaml"', f'"{ROOT}/configs/plug/fpn.yaml"'))
    small = ["MODEL.TIMM.NAME", "test_convnext", "MODEL.TIMM.WEIGHTS", "",
             "MODEL.FPN.OUT_CHANNELS", 32]  # fmt: skip
    model = build_model(load_config(str(tmp_path / "a.yaml"), [*FAST, *small]))
    assert model.backbone.output_shape()["context"] == ShapeSpec(channels=32, stride=32)
    train_step(model, make_input(64, 96, boxes=1))


def test_a_backbone_and_heads_of_your_own(tmp_path):
    (tmp_path / "a.yaml").write_text(block("yaml", "build_my_backbone"))
    names = {"MyBackbone": MyBackbone, "BACKBONE_REGISTRY": BACKBONE_REGISTRY,
             "ROI_HEADS_REGISTRY": ROI_HEADS_REGISTRY, "SkipPooling": SkipPooling,
             "MyStandardROIHeads": type("MyStandardROIHeads", (StandardROIHeads,), {})}  # fmt: skip
    exec(block("python", "def build_my_backbone"), names)
    exec(block("python", "class MyROIHeads"), names)
    try:
        for heads in ("IONROIHeads", "MyROIHeads"):
            cfg = load_config(str(tmp_path / "a.yaml"), [*FAST, "MODEL.ROI_HEADS.NAME", heads])
            model = build_model(cfg)
            assert type(model.roi_heads).__name__ == heads
            assert model.roi_heads.box_pooler.reduce.in_channels == 8 + 12 + 512
            train_with_keypoints(model)
    finally:
        del BACKBONE_REGISTRY._obj_map["build_my_backbone"]
        del ROI_HEADS_REGISTRY._obj_map["MyROIHeads"]


def test_lazy_example():
    pytest.importorskip("detectron2.modeling.backbone.vit", reason="this Detectron2 has no ViT")
    pytest.importorskip("timm", reason="Detectron2's ViT needs timm")
    names = {}
    exec(block("python", "plug_in_lazy(model"), names)
    backbone = names["model"].backbone
    assert backbone.in_feature == "p4" and backbone.context.hidden_dim == 256
