"""demo.py as a module, a tiny model without training, and runs of the program."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from cli_helpers import load_program
from demo_helpers import CONFIG, OPTS
from detectron2.modeling import build_model

import ion_d2  # noqa: F401 (registers the models)
from ion_d2.engine.setup import load_config, run_cli


@pytest.fixture(scope="session")
def demo():
    return load_program("demo.py")


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    model = build_model(load_config(CONFIG, [*OPTS, "MODEL.ROI_HEADS.NUM_CLASSES", "3"]))
    path = tmp_path_factory.mktemp("weights") / "model.pth"
    torch.save({"model": model.state_dict(), "class_names": ["ant", "bee", "cat"]}, path)
    return str(path)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def run(demo, monkeypatch, out):
    """Runs the program, with results in tmp_path/out; returns its exit status."""

    def start(inputs, *options, config=CONFIG, output=out):
        told = ["--config-file", config, "--output", output, *options]
        if inputs:
            told[2:2] = ["--input", *inputs]
        monkeypatch.setattr(sys, "argv", ["demo.py", *map(str, told)])
        with pytest.raises(SystemExit) as stop:
            run_cli(demo.main)
        return stop.value.code

    return start


@pytest.fixture
def listed(out):
    """Reads what a run found."""
    return lambda: json.loads(Path(out, "detections.json").read_text())
