"""demo.py: which pictures it finds, where it draws them, what it lists, and how it fails."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_helpers import load_program
from detectron2.data import DatasetCatalog
from detectron2.modeling import build_model
from PIL import Image

import ion_d2  # noqa: F401 (registers the models)
from ion_d2.data import class_names
from ion_d2.engine.setup import load_config, run_cli
from ion_d2.errors import IONError

ROOT = Path(__file__).resolve().parents[1]
CONFIG = str(ROOT / "configs/ion_tiny.yaml")
OPTS = [
    *("MODEL.DEVICE", "cpu", "MODEL.VGG.WIDTH_MULTIPLIER", "0.0625"),
    *("MODEL.CONTEXT.HIDDEN_DIM", "8", "MODEL.CONTEXT.OUT_DIM", "8"),
    *("MODEL.SKIP_POOLER.OUT_CHANNELS", "8", "MODEL.SKIP_POOLER.SCALE_INIT", "10.0"),
    *("MODEL.ROI_BOX_HEAD.FC_DIM", "16", "MODEL.RPN.POST_NMS_TOPK_TEST", "30"),
    *("INPUT.MIN_SIZE_TEST", "64", "INPUT.MAX_SIZE_TEST", "96"),
    *("DATASETS.TRAIN", "()", "DATASETS.TEST", "()"),
]


@pytest.fixture(scope="module")
def demo():
    return load_program("demo.py")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    model = build_model(load_config(CONFIG, [*OPTS, "MODEL.ROI_HEADS.NUM_CLASSES", "3"]))
    path = tmp_path_factory.mktemp("weights") / "model.pth"
    torch.save({"model": model.state_dict()}, path)
    return str(path)


def picture(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def run(demo, monkeypatch, tmp_path):
    """Runs the program on pictures, drawing into tmp_path/out; returns its exit status."""

    def start(inputs, *options, config=CONFIG, output=tmp_path / "out"):
        told = ("--config-file", config, "--input", *inputs, "--output", output, *options)
        monkeypatch.setattr(sys, "argv", ["demo.py", *map(str, told)])
        with pytest.raises(SystemExit) as stop:
            run_cli(demo.main)
        return stop.value.code

    return start


def errors(capture):
    return [line for line in capture.readouterr().err.splitlines() if "error:" in line]


def model(weights):
    return ("MODEL.WEIGHTS", weights, "MODEL.ROI_HEADS.NUM_CLASSES", "3", *OPTS)


def test_folders_are_searched_and_keep_their_shape(demo, tmp_path):
    for name in ("in/a.jpg", "in/deep/er/a.PNG", "in/b.jpeg"):
        picture(tmp_path / name)
    (tmp_path / "in/notes.txt").write_text("no picture")
    found = demo.find_pictures([str(tmp_path / "in")], tmp_path / "out")
    places = {p.relative_to(tmp_path).as_posix(): q for p, q in found.items()}
    assert {k: v.relative_to(tmp_path).as_posix() for k, v in places.items()} == {
        "in/a.jpg": "out/a.jpg",
        "in/b.jpeg": "out/b.jpg",
        "in/deep/er/a.PNG": "out/deep/er/a.jpg",
    }


LONG = "猫" * 83


@pytest.mark.parametrize(
    "names",
    [
        ("x/a.jpg", "y/a.jpg", "x/a.png", "y/A.bmp", "x/a_2.png"),
        (f"x/{LONG}aa.jpg", f"y/{LONG}aa.jpg", f"x/{LONG}ab.png", f"x/{LONG}.webp"),
    ],
    ids=["equal", "long"],
)
def test_names_of_drawings_fit_and_do_not_collide(demo, tmp_path, names):
    inputs = [str(picture(tmp_path / name)) for name in names]
    places = demo.find_pictures(inputs, tmp_path / "out").values()
    assert len({str(place).lower() for place in places}) == len(inputs)
    assert max(len(place.name.encode()) for place in places) <= 255


def test_inputs_are_never_replaced(demo, tmp_path):
    inputs = [picture(tmp_path / name) for name in ("a.jpg", "b.png", "b.jpg", "sub/a.jpg")]
    for output in (tmp_path, tmp_path / "sub", tmp_path / "sub/.."):
        found = demo.find_pictures([str(tmp_path), str(inputs[3])], output)
        taken = {path.resolve() for path in inputs}
        assert not taken & {place.resolve() for place in found.values()}


def test_drawings_of_an_earlier_run_are_no_inputs(demo, tmp_path):
    picture(tmp_path / "a.jpg")
    picture(tmp_path / "out/a.jpg")
    assert list(demo.find_pictures([str(tmp_path)], tmp_path / "out")) == [tmp_path / "a.jpg"]


def test_patterns_and_repeats(demo, tmp_path):
    for name in ("a1.png", "a2.png", "b.png", "[x].png"):
        picture(tmp_path / name)
    inputs = [str(tmp_path / text) for text in ("a*.png", "a1.png", "[x].png")]
    found = demo.find_pictures(inputs, tmp_path / "out")
    assert [path.name for path in found] == ["a1.png", "a2.png", "[x].png"]


@pytest.mark.parametrize("text", ["none*.jpg", "none.jpg", "empty", "MODEL.WEIGHTS"])
def test_input_that_matches_nothing(demo, tmp_path, text):
    (tmp_path / "empty").mkdir()
    with pytest.raises(IONError, match="matches no picture"):
        demo.find_pictures([str(tmp_path / text)], tmp_path / "out")


def test_options_and_overrides_in_any_order(demo):
    args = demo.parse_args(
        "--config-file c.yaml --input a b --output out A.B 1 --json x.json C.D -1".split()
    )
    assert args.input == ["a", "b"] and args.opts == ["A.B", "1", "C.D", "-1"]
    assert args.json == Path("x.json") and args.confidence_threshold == 0.5


def test_detections_are_drawn_and_listed(run, weights, tmp_path, catalogs):
    inputs = [picture(tmp_path / "x/a.png"), picture(tmp_path / "y/a.png", seed=1)]
    before = [path.read_bytes() for path in inputs]
    names = tmp_path / "classes.txt"
    names.write_text("ant\nbee\ncat\n")
    options = ("--classes", names, "--confidence-threshold", "0.02", "MODEL.WEIGHTS", weights)
    assert run(inputs, *options, *OPTS) == 0
    assert [path.read_bytes() for path in inputs] == before
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"a.jpg", "a_2.jpg", "detections.json", "detections.classes.txt"}
    listed = json.loads((tmp_path / "out/detections.json").read_text())
    assert [entry["file"] for entry in listed] == [str(path) for path in inputs]
    for entry in listed:
        scores = [found["score"] for found in entry["detections"]]
        assert scores and scores == sorted(scores, reverse=True) and min(scores) >= 0.02
        assert (entry["width"], entry["height"]) == (80, 60)
        for found in entry["detections"]:
            assert found["class"] == ["ant", "bee", "cat"][found["class_id"]]
            x0, y0, x1, y1 = found["box"]
            assert 0 <= x0 < x1 <= 80 and 0 <= y0 < y1 <= 60
    dataset = f"detections:{tmp_path / 'out/detections.json'}"
    assert class_names([dataset]) == ["ant", "bee", "cat"]
    for entry, record in zip(listed, DatasetCatalog.get(dataset)):
        assert record["file_name"] == entry["file"]
        assert [found["box"] for found in entry["detections"]] == [
            found["bbox"] for found in record["annotations"]
        ]


def test_unreadable_pictures_are_named_and_the_others_done(run, weights, tmp_path, capfd):
    data = picture(tmp_path / "good.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.png").write_text("not a picture")
    report = tmp_path / "made/found.json"
    assert run([tmp_path], "--json", report, *model(weights)) == 1
    cut, text = errors(capfd)
    assert "cut.png" in cut and "text.png" in text
    assert (tmp_path / "out/good.jpg").is_file() and len(json.loads(report.read_text())) == 1


def test_what_was_found_is_listed_whatever_happens_then(
    demo, run, weights, tmp_path, monkeypatch, capfd
):
    """A picture of a shape that no model takes is left out; Ctrl-C loses nothing."""
    for name in ("a.png", "c.png", "d.png"):
        picture(tmp_path / name)
    Image.new("RGB", (3000, 1)).save(tmp_path / "b.png")
    assert run([tmp_path], *model(weights)) == 1
    (line,) = errors(capfd)
    assert "b.png" in line and "3000x1" in line
    listed = tmp_path / "out" / "detections.json"
    assert len(json.loads(listed.read_text())) == 3

    def stop(image, found, names, place):
        if place.name == "c.jpg":
            raise KeyboardInterrupt

    monkeypatch.setattr(demo, "draw", stop)
    assert run([tmp_path], *model(weights)) == 130
    files = [Path(entry["file"]).name for entry in json.loads(listed.read_text())]
    assert files == ["a.png", "c.png"]


def test_a_place_that_cannot_be_written_is_named(run, weights, tmp_path, capfd):
    path = picture(tmp_path / "a.png")
    assert run([path], "--json", tmp_path, *model(weights)) == 1
    err = capfd.readouterr().err
    (line,) = [line for line in err.splitlines() if line.startswith("error:")]
    assert str(tmp_path) in line and "Traceback" not in err
    (tmp_path / "out" / "a.jpg").unlink()
    (tmp_path / "out" / "a.jpg").mkdir()
    assert run([path], *model(weights)) == 1
    assert "a.jpg cannot be written" in capfd.readouterr().err
    assert run([path], output=path) == 1
    assert "a.png cannot be made" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("config", "options", "said"),
    [
        ("none.yaml", [], "none.yaml"),
        (CONFIG, ["MODEL.WIEGHTS", "x"], "MODEL.WIEGHTS"),
        (CONFIG, [*OPTS, "MODEL.ROI_HEADS.NUM_CLASSES", "3"], "MODEL.WEIGHTS"),
        (CONFIG, OPTS, "--classes"),
    ],
)
def test_bad_input_is_one_sentence(run, tmp_path, capsys, config, options, said):
    path = picture(tmp_path / "a.png")
    assert run([path], *options, config=config) == 1
    error = capsys.readouterr().err.strip()
    assert said in error and error.startswith("error:") and "\n" not in error
