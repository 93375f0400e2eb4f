"""What a version before the packages were parted has written: read, and gone on with.

``earlier/`` holds a training of two steps (checkpoint with optimizer, and config.yaml) of a tiny
model, and what it found in a picture then.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from detectron2.solver import build as solver_build
from model_helpers import make_input

from ion_d2.engine import IONCheckpointer, IONTrainer, build_model, load_config, settle_data

EARLIER = Path(__file__).parent / "earlier"


def config(*opts):
    return load_config(str(EARLIER / "config.yaml"), ["MODEL.DEVICE", "cpu", *map(str, opts)])


def test_it_detects_what_it_detected():
    model = build_model(config()).eval()
    IONCheckpointer(model).load_complete(str(EARLIER / "model_final.pth"))
    with torch.no_grad():
        found = model([make_input(64, 96)])[0]["instances"][:10]
    expected = json.loads((EARLIER / "found.json").read_text())
    assert len(found) == len(expected["scores"]) == 10
    torch.testing.assert_close(found.scores, torch.tensor(expected["scores"]))
    torch.testing.assert_close(found.pred_boxes.tensor, torch.tensor(expected["boxes"]))


@pytest.mark.skipif(
    hasattr(solver_build, "reduce_param_groups"),
    reason="the file is of Detectron2 0.5, whose optimizer has a group for each parameter",
)
def test_its_training_goes_on(scenes, tmp_path):
    shutil.copy(EARLIER / "model_final.pth", tmp_path)
    (tmp_path / "last_checkpoint").write_text("model_final.pth")
    data = f"('voc:{scenes}:trainval',)"
    cfg = config("DATASETS.TRAIN", data, "OUTPUT_DIR", tmp_path, "SOLVER.MAX_ITER", 3).clone()
    settle_data(cfg, train=True)
    trainer = IONTrainer(cfg)
    trainer.resume_or_load(resume=True)
    momentum = [state["momentum_buffer"] for state in trainer.optimizer.state.values()]
    assert trainer.start_iter == 2 and any(buffer.any() for buffer in momentum)
    trainer.train()
    saved = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert saved["iteration"] == 2 and saved["class_names"] == ["cross", "triangle"]


def test_names_of_parameters_are_those_of_the_checkpoints():
    known = torch.load(EARLIER / "model_final.pth", weights_only=True)["model"]
    now = build_model(config()).state_dict()
    assert known.keys() == now.keys()
    parts = ("backbone.context.", "backbone.bottom_up.conv5_1.", "roi_heads.box_pooler.",
             "roi_heads.box_head.fc6.")  # fmt: skip
    assert all(any(key.startswith(part) for key in now) for part in parts)
