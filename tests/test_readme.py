"""What the README says exists and runs."""

import re
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from model_helpers import make_input

from ion_d2.engine.setup import load_config

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
TEXTS = [README, *(path.read_text() for path in (ROOT / "docs").glob("[DT]*.md"))]


@pytest.mark.parametrize("meta_architecture", ["ION", "GeneralizedRCNN"])
def test_python_example_builds_a_detector_that_trains(meta_architecture):
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (code,) = (block for block in blocks if "add_ion_config(cfg)" in block)
    scope = {}
    exec(code, scope)
    cfg = scope["cfg"]
    cfg.MODEL.DEVICE, cfg.MODEL.ROI_HEADS.NUM_CLASSES, cfg.MODEL.WEIGHTS = "cpu", 3, ""
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM, cfg.MODEL.META_ARCHITECTURE = 64, meta_architecture
    torch.manual_seed(0)
    model = build_model(cfg).train()
    assert model.roi_heads.box_head.fc6.in_features == cfg.MODEL.SKIP_POOLER.OUT_CHANNELS * 7 * 7
    with EventStorage():
        losses = model([make_input(64, 96), make_input(80, 64)])
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert not parameter.requires_grad or parameter.grad is not None, name


def test_named_files_exist():
    pattern = r"(?:configs|tools|docs|ion_d2)/[\w./-]+\.(?:yaml|py|md|jpg|png)"
    for name in re.findall(pattern, README):
        assert (ROOT / name).is_file(), name
    for name in re.findall(r"`((?:ion|faster_rcnn)_\w+\.yaml)`", README):
        assert (ROOT / "configs" / name).is_file(), name


def test_named_config_keys_exist():
    cfg = load_config(str(ROOT / "configs/ion_tiny.yaml"))
    groups = "MODEL|INPUT|TEST|DATASETS|SOLVER|DISTRIBUTED"
    for key in set(re.findall(rf"\b(?:{groups})(?:\.[A-Z_]+)+", "\n".join(TEXTS))):
        node = cfg
        for part in key.split("."):
            node = node[part]
