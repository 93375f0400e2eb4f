"""What the README says exists and runs."""

import re
import sys
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from model_helpers import SMALL, make_input, train_step

from ion_d2 import build_trainer, get_config

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("meta_architecture", ["ION", "GeneralizedRCNN"])
def test_python_example_builds_a_detector_that_trains(meta_architecture):
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (code,) = (block for block in blocks if "MODEL.SKIP_POOLER" in block)
    scope = {}
    exec(code, scope)
    cfg = scope["cfg"]
    cfg.MODEL.DEVICE, cfg.MODEL.ROI_HEADS.NUM_CLASSES, cfg.MODEL.WEIGHTS = "cpu", 3, ""
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM, cfg.MODEL.META_ARCHITECTURE = 64, meta_architecture
    torch.manual_seed(0)
    model = build_model(cfg)
    assert model.roi_heads.box_head.fc6.in_features == cfg.MODEL.SKIP_POOLER.OUT_CHANNELS * 7 * 7
    train_step(model, make_input(64, 96), make_input(80, 64))


# The README's program is for VGG16 at full size; these settings make it a matter of seconds.
SMALL_VGG = [
    *SMALL, "MODEL.ROI_HEADS.NUM_CLASSES", "2", "MODEL.WEIGHTS", "", "SOLVER.MAX_ITER", "2",
    "SOLVER.STEPS", "()", "SOLVER.WARMUP_ITERS", "0", "SOLVER.IMS_PER_BATCH", "2",
    "INPUT.MIN_SIZE_TRAIN", "(96,)", "INPUT.MIN_SIZE_TEST", "96", "DATALOADER.NUM_WORKERS", "0",
    "MODEL.RPN.POST_NMS_TOPK_TEST", "20", "MODEL.RPN.POST_NMS_TOPK_TRAIN", "20",
]  # fmt: skip


@pytest.mark.parametrize("trainer", ["Detectron2's", "ION's"])
def test_the_recipe_of_detectron2s_keys_trains_under_either_trainer(
    trainer, scenes, tmp_path, monkeypatch
):
    opts = [
        *SMALL_VGG, "DATASETS.TRAIN", f"('voc:{scenes}:trainval',)", "DATASETS.TEST",
        f"('voc:{scenes}:test',)", "OUTPUT_DIR", str(tmp_path / "out"),
    ]  # fmt: skip
    if trainer == "ION's":
        config = str(ROOT / "configs/ion_vgg16_voc_d2.yaml")
        done = build_trainer(get_config(config, dict(zip(opts[::2], opts[1::2]))))
        done.train()
    else:
        _, program = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
        monkeypatch.setattr(sys, "argv", ["program.py", *opts])
        scope = {}
        exec(program, scope)
        done = scope["trainer"]
    assert "AP50" in done._last_eval_results["bbox"]
    assert (tmp_path / "out" / "model_final.pth").is_file()
    assert '"loss_cls"' in (tmp_path / "out" / "metrics.json").read_text()


def test_named_configs_exist():
    names = re.findall(r"`((?:(?:ion|faster_rcnn)_|plug/|real/)\w+\.yaml)`", README)
    assert len(names) > 10
    assert [name for name in names if not (ROOT / "configs" / name).is_file()] == []
