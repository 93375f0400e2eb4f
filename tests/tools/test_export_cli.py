"""tools/export.py from the command line to the figures of a comparison."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from cli_helpers import load_tool, output_of, run_tool, says
from model_helpers import SMALL, small_model
from PIL import Image

from ion_d2.engine.checkpoint import IONCheckpointer

pytestmark = pytest.mark.slow

SMALLER = [*SMALL, "INPUT.MIN_SIZE_TEST", "96", "MODEL.RPN.POST_NMS_TOPK_TEST", "30",
           "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.2"]  # fmt: skip

GIVEN = ["MODEL.PROPOSAL_GENERATOR.NAME", "PrecomputedProposals"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "model.pth"
    torch.save({"model": small_model().state_dict()}, path)
    return path


@pytest.fixture
def export(capfd, tmp_path, weights):
    """Runs tools/export.py: arguments -> (exit status, stdout, stderr)."""
    tool = load_tool("export")
    (tmp_path / "classes.txt").write_text("ant\nbee\ncat\n")

    def run(output, *flags, opts=()):
        fixed = ["--config-file", "configs/ion_tiny.yaml", "--classes", tmp_path / "classes.txt"]
        opts = [*SMALLER, "MODEL.WEIGHTS", weights, *opts]
        return run_tool(tool, capfd, *fixed, "--output", tmp_path / output, *flags, *opts)

    run.tool = tool
    return run


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a.pdf", "a.txt", "._a.png"):
        (folder / name).write_text("not a picture")
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 256, (70, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


@pytest.mark.parametrize("name", ["a.ts", "a.onnx"])
def test_exports_and_compares(export, pictures, tmp_path, name):
    status, out, err = export(name, "--check", pictures, "--limit", "2")
    assert status == 0, err
    assert "2 pictures, " in out and " 0 detections" not in out
    assert "without counterpart: 0 of the original, 0 exported" in out
    assert "time of the exported model relative to the original: " in out
    assert {"a.ts", "a.onnx"} & {file.name for file in tmp_path.iterdir()} == {name}
    assert '"ant"' in (tmp_path / f"{name}.json").read_text()


def test_a_picture_that_cannot_be_compared_on_is_told_without_advice_for_training(export, pictures):
    Image.fromarray(np.full((70, 90), 1000, np.uint16)).save(pictures / "deep.png")
    (pictures / "0.jpg").write_text("not a picture")
    Image.fromarray(np.zeros((1, 2000, 3), np.uint8)).save(pictures / "1.jpg")
    run = export("a.ts", "--check", pictures, opts=["INPUT.SKIP_UNREADABLE", "True"])
    status, out, err = run
    assert status == 1 and "SKIP_UNREADABLE" not in err
    assert [line.split(": ")[0] for line in err.splitlines() if "error" in line] == ["error"] * 3
    for told in ("0.jpg cannot be decoded", "1.jpg: A picture of 2000x1 pixels is too narrow"):
        assert told in err
    assert "deep.png has more than 8 bits" in err and "save it with 8 bits." in err
    assert "3 pictures, " in out and "without counterpart: 0 of the original, 0 exported" in out


def test_no_picture_that_can_be_compared_on(export, tmp_path):
    (tmp_path / "a.jpg").write_text("not a picture")
    assert says(export("a.ts", "--check", tmp_path), "a.jpg cannot be decoded")


def test_a_comparison_of_nothing_is_a_failure(export, pictures):
    run = export("a.ts", "--check", pictures, opts=["MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.999"])
    assert says(run, "nothing on these pictures", "MODEL.ROI_HEADS.SCORE_THRESH_TEST")


def test_the_detector_alone_is_written_where_pictures_are_tested_in_several_sizes(export, tmp_path):
    status, _, err = export("a.safetensors", opts=["TEST.AUG.ENABLED", "True"])
    assert status == 0, err
    load_complete = IONCheckpointer(small_model(seed=1)).load_complete
    load_complete(str(tmp_path / "a.safetensors"))


def test_weights_alone_are_written_of_a_model_on_loaded_boxes(export, tmp_path):
    model = small_model(*GIVEN)
    torch.save({"model": model.state_dict()}, tmp_path / "given.pth")
    opts = [*GIVEN, "MODEL.LOAD_PROPOSALS", "True", "MODEL.WEIGHTS", tmp_path / "given.pth"]
    output_of(export("a.safetensors", opts=opts))
    IONCheckpointer(model).load_complete(str(tmp_path / "a.safetensors"))


def test_onnx_that_is_not_installed_is_named(export, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert says(export("a.onnx"), "pip install onnx")


def test_a_difference_is_a_failure(export, pictures, monkeypatch):
    load = export.tool.load_exported

    def shifted(path):
        detect = load(path)
        return lambda image: (detect(image)[0] + 1, *detect(image)[1:])

    monkeypatch.setattr(export.tool, "load_exported", shifted)
    status, out, _ = export("a.ts", "--check", pictures, "--limit", "1")
    assert status == 1 and "without counterpart: 0 of" not in out


@pytest.mark.parametrize(
    "output, flags, opts, word",
    [
        ("a.pt", [], [], "a.pt must end in .ts, .onnx or .safetensors"),
        ("a.ts", ["--check", "absent"], [], "--check absent holds no picture"),
        ("a.ts", [], ["MODEL.WEIGHTS", ""], "MODEL.WEIGHTS is empty"),
        ("a.ts", [], ["TEST.FLIP_AVERAGING", "True"], "TEST.FLIP_AVERAGING False"),
        ("a.ts", [], ["MODEL.LOAD_PROPOSALS", "True"], "MODEL.LOAD_PROPOSALS False"),
        ("a.ts", [], [*GIVEN, "MODEL.LOAD_PROPOSALS", "True"], "is PrecomputedProposals"),
    ],
)
def test_bad_input_is_one_sentence(export, tmp_path, output, flags, opts, word):
    assert says(export(output, *flags, opts=opts), word)
    assert not list(tmp_path.glob("a.*"))


def test_no_picture_to_compare_on_is_no_number(export):
    assert "--limit: 0 is below 1" in export("a.ts", "--check", "docs/images", "--limit", "0")[2]
