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


(PROGRAM,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
GRAY = ("INPUT.FORMAT", "L", "MODEL.PIXEL_MEAN", "[115.0]", "MODEL.PIXEL_STD", "[1.0]")


def sizes(shortest, longest):
    return "INPUT.MIN_SIZE_TEST", shortest, "INPUT.MAX_SIZE_TEST", longest


def noise(width, height):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("form", [("INPUT.FORMAT", "BGR"), GRAY], ids=["BGR", "L"])
def test_program_finds_what_the_predictor_finds(tmp_path, form):
    cfg = small_config(*OPTS, *sizes(120, 130), *form)
    model = spread(small_model(*OPTS, *form))
    exif = Image.Exif()
    exif[274] = 6  # to be turned by a quarter
    Image.fromarray(noise(101, 143)).save(tmp_path / "a.png", exif=exif)
    pixels = np.rot90(noise(101, 143), -1)
    for suffix in ("ts", "onnx"):
        export_detector(model, tmp_path / f"model.{suffix}", describe(cfg, NAMES))

    command = [sys.executable, "-c", RUNNER, PROGRAM, "a.png", "model.ts", "model.onnx"]
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


@pytest.mark.parametrize("limits", [(0, 400), (240, 400), (600, 1000)])
@pytest.mark.parametrize("form", [(), ("INPUT.FORMAT", "BGR"), GRAY], ids=["RGB", "BGR", "L"])
def test_program_prepares_each_size_as_the_predictor_does(tmp_path, form, limits):
    """Among them sizes whose last pixel hangs on the order of multiplications."""
    names = {}
    exec(PROGRAM.partition("\nmodel, picture =")[0], names)
    cfg = small_config(*sizes(*limits), *form)
    predictor, facts = IONPredictor(cfg, torch.nn.Identity()), describe(cfg, NAMES)
    for width, height in ((160, 23), (320, 62), (68, 640), (130, 320), (80, 26), (60, 60)):
        path = tmp_path / "a.png"
        Image.fromarray(noise(width, height)).save(path)
        image, back = names["prepare"](path, facts)
        wanted = predictor.preprocess(noise(width, height)[:, :, ::-1])
        np.testing.assert_array_equal(image, wanted.numpy())
        np.testing.assert_allclose(back * (image.shape[:0:-1] * 2), [width, height] * 2)
