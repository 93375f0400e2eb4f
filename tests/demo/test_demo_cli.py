"""demo.py: which pictures it finds, where it draws them, what it lists, and how it fails."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from cli_helpers import load_tool
from demo_helpers import CONFIG, OPTS, errors, model, picture
from detectron2.data import DatasetCatalog
from PIL import Image

from ion_d2.data import class_names
from ion_d2.errors import IONError


@pytest.mark.parametrize("part", ["ROI_HEADS", "RETINANET"])
def test_the_least_score_that_is_wanted_passes_the_models_threshold(demo, part):
    opts = ["MODEL.ROI_HEADS.NUM_CLASSES", "3", f"MODEL.{part}.SCORE_THRESH_TEST", "0.3"]
    args = demo.parse_args(["--config-file", CONFIG, "--input=a", "--output=o", *OPTS, *opts])
    for lowest in (0.01, 0.9):
        cfg, _ = demo.read_model_config(args, lowest_score=lowest)
        assert cfg.MODEL[part].SCORE_THRESH_TEST == min(lowest, 0.3)


def test_an_option_that_is_given_twice_adds(demo):
    given = "--config-file c --output o --input a b --input c"
    assert demo.parse_args(given.split()).input == ["a", "b", "c"]
    given = "photographs --data bccd=A --data coco=B"
    assert load_tool("study").build_parser().parse_args(given.split()).data == ["bccd=A", "coco=B"]


def places(demo, inputs, output):
    return demo.find_pictures(list(map(str, inputs)), demo.OutputFolder(output))


def test_folders_are_searched_and_keep_their_shape(demo, tmp_path):
    for name in ("in/a.jpg", "in/deep/er/a.PNG", "in/b.jpeg"):
        picture(tmp_path / name)
    (tmp_path / "in/notes.txt").write_text("no picture")
    found = places(demo, [tmp_path / "in"], tmp_path / "out")
    there = {p.relative_to(tmp_path).as_posix(): q for p, q in found.items()}
    assert {k: v.relative_to(tmp_path).as_posix() for k, v in there.items()} == {
        "in/a.jpg": "out/a.jpg",
        "in/b.jpeg": "out/b.jpg",
        "in/deep/er/a.PNG": "out/deep/er/a.jpg",
    }


def test_hidden_files_of_a_searched_folder_are_none_of_its_pictures(demo, tmp_path):
    """Copies of Jupyter and macOS; readers of datasets leave them out, too."""
    seen = picture(tmp_path / ".in/a.jpg")
    for name in ("._a.jpg", ".ipynb_checkpoints/a-checkpoint.jpg", "deep/.b/c.png"):
        picture(tmp_path / ".in" / name)
    hidden = tmp_path / ".in/._a.jpg"
    assert list(places(demo, [tmp_path / ".in"], tmp_path / "out")) == [seen]
    assert list(places(demo, [hidden], tmp_path / "out")) == [hidden]  # as it is named


def test_linked_folders_are_searched_but_not_for_what_was_drawn(demo, tmp_path):
    seen = picture(tmp_path / "in/a.jpg")
    picture(tmp_path / "elsewhere/b.jpg")
    picture(tmp_path / "elsewhere/out/b.jpg")
    (tmp_path / "in/link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    drawn = places(demo, [tmp_path / "in"], tmp_path / "elsewhere/out")
    assert list(drawn) == [seen, tmp_path / "in/link/b.jpg"]
    assert drawn[tmp_path / "in/link/b.jpg"] == tmp_path / "elsewhere/out/link/b.jpg"
    (tmp_path / "in/chosen.jpg").symlink_to(tmp_path / "elsewhere/b.jpg")
    found = places(demo, [tmp_path / "in"], tmp_path / "elsewhere")
    assert [path.name for path in found] == ["a.jpg", "chosen.jpg"]
    assert len(places(demo, [tmp_path / "in"], tmp_path)) == 4


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
    inputs = [picture(tmp_path / name) for name in names]
    drawn = places(demo, inputs, tmp_path / "out").values()
    assert len({str(place).lower() for place in drawn}) == len(inputs)
    assert max(len(place.name.encode()) for place in drawn) <= 255


def test_inputs_are_never_replaced(demo, tmp_path):
    inputs = [picture(tmp_path / name) for name in ("a.jpg", "b.png", "b.jpg", "sub/a.jpg")]
    for output in (tmp_path, tmp_path / "sub", tmp_path / "sub/.."):
        found = places(demo, [tmp_path, inputs[3]], output)
        taken = {path.resolve() for path in inputs}
        assert not taken & {place.resolve() for place in found.values()}


def test_patterns_and_repeats(demo, tmp_path):
    for name in ("a1.png", "a2.png", "b.png", "[x].png"):
        picture(tmp_path / name)
    inputs = [tmp_path / text for text in ("a*.png", "a1.png", "[x].png")]
    found = places(demo, inputs, tmp_path / "out")
    assert [path.name for path in found] == ["a1.png", "a2.png", "[x].png"]


@pytest.mark.parametrize("text", ["none*.jpg", "none.jpg", "empty", "MODEL.WEIGHTS"])
def test_input_that_matches_nothing(demo, tmp_path, text):
    (tmp_path / "empty").mkdir()
    with pytest.raises(IONError, match="matches no picture"):
        places(demo, [tmp_path / text], tmp_path / "out")


def test_options_and_overrides_in_any_order(demo):
    args = demo.parse_args(
        "--config-file c.yaml --input a b --output out A.B 1 --json x.json C.D -1".split()
    )
    assert args.input == ["a", "b"] and args.opts == ["A.B", "1", "C.D", "-1"]
    assert args.json == Path("x.json") and args.confidence_threshold == 0.5


def test_overrides_as_in_detectron2s_demo(demo):
    args = demo.parse_args(
        "--config-file c.yaml --video-input a.mp4 --webcam --output out --opts A.B -1 C.D x".split()
    )
    assert args.opts == ["A.B", "-1", "C.D", "x"]
    assert args.video_input == ["a.mp4"] and args.webcam == 0 and args.save == ["json"]


@pytest.mark.parametrize("score", ["50", "nan", "-1", "1.01", "half"])
def test_scores_are_from_0_to_1(demo, score, capsys):
    with pytest.raises(SystemExit):
        demo.parse_args(
            f"--config-file c --output o --input a --confidence-threshold {score}".split()
        )
    assert f"--confidence-threshold: {score} is no score" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    ["", "--input a --batch 0", "--input a --save xml", "--webcam -1", "--webcam 2147483648"],
)
def test_options_that_make_no_sense(demo, options, capsys):
    with pytest.raises(SystemExit) as stop:
        demo.parse_args(f"--config-file c.yaml --output out {options}".split())
    assert stop.value.code == 2


def test_detections_are_drawn_and_listed(run, weights, tmp_path, catalogs):
    inputs = [picture(tmp_path / "x/a.png"), picture(tmp_path / "y/a.png", seed=1)]
    before = [path.read_bytes() for path in inputs]
    names = tmp_path / "classes.txt"
    names.write_text("ant\nbee\ncat\n")
    options = ("--classes", names, "--confidence-threshold", "0.02", "MODEL.WEIGHTS", weights)
    assert run(inputs, *options, *OPTS) == 0
    assert [path.read_bytes() for path in inputs] == before
    written = {path.name for path in (tmp_path / "out").glob("[!.]*")}
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
    Image.fromarray(np.full((6, 8), 1000, np.uint16)).save(tmp_path / "deep.png")
    report = tmp_path / "made/found.json"
    assert run([tmp_path], "--json", report, *model(weights)) == 1
    cut, deep, text = errors(capfd)
    assert "cut.png" in cut and "deep.png" in deep and "text.png" in text
    assert not any("SKIP_UNREADABLE" in line for line in (cut, deep, text))  # it does nothing here
    assert (tmp_path / "out/good.jpg").is_file() and len(json.loads(report.read_text())) == 1


def test_what_was_found_is_listed_whatever_happens_then(
    run, weights, tmp_path, monkeypatch, capfd, listed
):
    """A picture of a shape that no model takes is left out; Ctrl-C loses nothing."""
    for name in ("a.png", "c.png", "d.png"):
        picture(tmp_path / name)
    Image.new("RGB", (3000, 1)).save(tmp_path / "b.png")
    assert run([tmp_path], *model(weights)) == 1
    (line,) = errors(capfd)
    assert "b.png" in line and "3000x1" in line
    assert len(listed()) == 3

    def stop(image, place):
        if place.name == "c.jpg":
            raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["demo_drawings"], "save_picture", stop)
    assert run([tmp_path], *model(weights)) == 130
    assert [Path(entry["file"]).name for entry in listed()] == ["a.png", "c.png"]


def test_a_place_that_cannot_be_written_is_named(run, weights, tmp_path, monkeypatch, capfd):
    path = picture(tmp_path / "in/deep/a.png")
    assert run([path], "--json", tmp_path, *model(weights)) == 1
    (line,) = errors(capfd)
    assert f"{tmp_path} is there" in line
    (tmp_path / "out/.demo-files.jsonl").write_text("5\n")
    assert run([path], "--json", ".", *model(weights)) == 2
    assert "'.' is no name of a file" in capfd.readouterr().err
    (tmp_path / "out/deep").write_text("no folder")
    assert run([tmp_path / "in"], *model(weights)) == 1
    assert "deep cannot be made" in capfd.readouterr().err
    assert run([path], output=path) == 1
    assert "a.png cannot be made" in capfd.readouterr().err

    def full(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    assert run([path], *model(weights)) == 1
    assert "Nothing can be written to" in capfd.readouterr().err


def test_progress_is_logged_where_there_is_no_terminal(
    run, demo, weights, tmp_path, monkeypatch, caplog
):
    inputs = [picture(tmp_path / f"{number}.png") for number in range(3)]
    monkeypatch.setattr(demo, "LOG_PERIOD", 0)
    assert run(inputs, "--no-drawings", *model(weights)) == 0
    lines = [record.getMessage() for record in caplog.records if record.name == "demo"]
    assert len(lines) == 3 and "100% 3/3" in lines[-1]


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
