"""The program and settings of docs/PHOTOGRAPHS.md for a network that sees less make a detector."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from detectron2.modeling import BACKBONE_REGISTRY
from model_helpers import make_input, train_step

from ion_d2.engine.setup import build_model, load_config

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "PHOTOGRAPHS.md").read_text(encoding="utf-8")
SMALL = ["MODEL.DEVICE", "cpu", "MODEL.ROI_HEADS.NUM_CLASSES", 3, "MODEL.ROI_BOX_HEAD.FC_DIM", 32]
LAYERS = ["stage2", "stage3", "stage4"]
SKIP = ["MODEL.BACKBONE.NAME", "build_squeezenet", "MODEL.ROI_HEADS.IN_FEATURES", LAYERS]


@pytest.mark.parametrize("overrides", [[], SKIP], ids=["ION", "skip"])
def test_squeezenet(tmp_path, monkeypatch, overrides):
    (program,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    (settings,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    (tmp_path / "squeezenet.yaml").write_text(settings.replace("configs/", f"{ROOT}/configs/"))
    monkeypatch.syspath_prepend(ROOT)
    assert 'weights="DEFAULT"' in program  # of ImageNet, which a test does not download
    exec(program.replace('"DEFAULT"', "None"), {"__name__": "squeezenet"})
    try:
        cfg = load_config(str(tmp_path / "squeezenet.yaml"), [*SMALL, *overrides])
        model = build_model(cfg)
    finally:
        del BACKBONE_REGISTRY._obj_map["build_squeezenet"]
    trained = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"proposal_generator", "roi_heads", *([] if overrides else ["backbone"])}
    assert model.roi_heads.box_pooler.reduce.in_channels == 128 + 256 + 512 + 128 * (not overrides)
    # 33 rows and 64 columns become whole cells of 16 pixels.
    losses = train_step(model, make_input(33, 64, boxes=1))
    assert {"loss_cls", "loss_box_reg", "loss_rpn_cls"} <= losses.keys()
    shapes = {n: (each.stride, each.channels) for n, each in model.backbone.output_shape().items()}
    assert [shapes[name] for name in LAYERS] == [(4, 128), (8, 256), (16, 512)]
