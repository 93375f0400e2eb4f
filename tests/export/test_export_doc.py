"""The program of docs/EXPORT.md runs where ion_d2 and Detectron2 are missing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from model_helpers import small_config, small_model
from PIL import Image
from test_export import OPTS, spread

from ion_d2.engine.predictor import IONPredictor
from ion_d2.export import describe, export_detector

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "EXPORT.md").read_text(encoding="utf-8")
NAMES = ["ant", "bee", "cat"]

# Runs a program on each model in turn.
RUNNER = """
import sys
for name in ("ion_d2", "detectron2", "fvcore"):
    sys.modules[name] = None  # importing it fails
program, picture, *models = sys.argv[1:]
for model in models:
    sys.argv[1:] = [model, picture]
    exec(compile(program, "EXPORT.md", "exec"), {})
    print("end")
"""


@pytest.mark.parametrize("channels, sides", [("BGR", (120, 130))])
def test_program_finds_what_the_predictor_finds(tmp_path, channels, sides):
    (program,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    sizes = ["INPUT.MIN_SIZE_TEST", sides[0], "INPUT.MAX_SIZE_TEST", sides[1]]
    cfg = small_config(*OPTS, *sizes, "INPUT.FORMAT", channels)
    model = spread(small_model(*OPTS))
    pixels = np.random.default_rng(0).integers(0, 256, (101, 143, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    for suffix in ("ts", "onnx"):
        export_detector(model, tmp_path / f"model.{suffix}", describe(cfg, NAMES))

    command = [sys.executable, "-c", RUNNER, program, "a.png", "model.ts", "model.onnx"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    found = IONPredictor(cfg, model)(pixels[:, :, ::-1])["instances"]
    assert len(found) > 5
    *answers, rest = done.stdout.split("end\n")
    assert len(answers) == 2 and not rest
    for answer in answers:
        lines = [line.split() for line in answer.splitlines()]
        assert [line[0] for line in lines] == [NAMES[label] for label in found.pred_classes]
        values = torch.tensor([[float(word) for word in line[1:]] for line in lines])
        torch.testing.assert_close(values[:, 0], found.scores, atol=2e-3, rtol=0)
        torch.testing.assert_close(values[:, 1:], found.pred_boxes.tensor, atol=0.2, rtol=0)
