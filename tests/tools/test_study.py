"""tools/study.py as users run it: with train_net.py itself, killed and continued."""

from __future__ import annotations

import _thread
import json
import threading
from pathlib import Path

import pytest
import yaml
from cli_helpers import load_tool
from model_helpers import SMALL
from process_helpers import wait_until

from ion_d2.errors import IONError

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent.parent
STEPS = 40


@pytest.fixture
def study():
    return load_tool("study")


def write_table(folder):
    """A row of the real program, on pictures of 128 pixels seen at 64."""
    keys = dict(zip(SMALL[::2], SMALL[1::2]))
    keys.update({"MODEL.ROI_HEADS.NUM_CLASSES": 0, "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 0,
                 "INPUT.MIN_SIZE_TRAIN": [64], "INPUT.MIN_SIZE_TEST": 64, "SOLVER.MAX_ITER": STEPS,
                 "SOLVER.CHECKPOINT_PERIOD": 1, "SOLVER.IMS_PER_BATCH": 1})  # fmt: skip
    scenes = {"train": 3, "test": 3, "families": ["ordinary"], "size": 128}
    table = {
        "title": "Small",
        "question": "Does it run?",
        "config": str(ROOT / "configs" / "ion_study.yaml"),
        "keys": keys,
        "data": {"scenes": {"scenes": scenes}},
        "rows": {"ION": None},
        "columns": {"ordinary": "classes/*/area/AP50", "AP": "coco/AP"},
        "full": {"seeds": [0, 1, 2]},
        "quick": {"seeds": [0], "keys": {"SOLVER.MAX_ITER": 1}},
    }
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(table, sort_keys=False))
    return path


def test_interrupted_and_continued_with_the_real_program(study, tmp_path, capsys):
    out = tmp_path / "out"
    words = [str(write_table(tmp_path)), "--out", str(out), "--seeds", "0"]
    folder = out / "runs" / "ION-scenes-seed-0"

    def interrupt():
        wait_until((folder / "model_0000002.pth").exists, seconds=300)
        _thread.interrupt_main()

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert study.main(words) == 130
    thread.join()
    assert capsys.readouterr().err == "Interrupted. Run the same command to go on.\n"
    first = int((folder / "last_checkpoint").read_text()[len("model_") : -len(".pth")]) + 1
    assert 3 <= first < STEPS
    assert study.main(words) == 0
    text = capsys.readouterr().out
    assert f"Starting training from iteration {first}" in (folder / "study.log").read_text()
    assert [path.name for path in folder.glob("model_*.pth")] == ["model_final.pth"]
    (row,) = json.loads((out / "small" / "results.json").read_text())["rows"]
    assert row["figures"]["AP"]["count"] == 1 and row["figures"]["ordinary"]["mean"] >= 0
    assert row["runs"][0]["seconds"] > 1
    assert "| ION" in text and (out / "small" / "table.md").read_text() in text


def test_lists_tables(study, capsys):
    assert study.main(["--list"]) == 0
    told = capsys.readouterr().out
    assert "outside-inside: What inside and outside bring" in told and "24 trainings" in told
    assert "96 trainings, --quick 8\n" in told  # refined rows evaluate the models of others
    assert study.main([]) == 0 and capsys.readouterr().out == told


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["outsideinside"], "There is no table 'outsideinside'; choose from context"),
        (["none.yaml"], "none.yaml"),
        (["far", "--data", "bccd"], "'bccd' is not NAME=PATH"),
        (["photographs"], "add --data bccd=PATH"),
    ],
)
def test_bad_input_is_one_sentence(study, tmp_path, words, message):
    with pytest.raises(IONError, match=message):
        study.main([*words, "--out", str(tmp_path / "out")])


@pytest.mark.parametrize("words", [["--jobs", "0"], ["--seeds", "-1"], ["--seeds", "x"]])
def test_bad_numbers_are_refused(study, words, capsys):
    with pytest.raises(SystemExit):
        study.main(["far", *words])
    assert words[0] in capsys.readouterr().err


def test_failed_runs_give_status_1(study, tmp_path, capsys):
    table = yaml.safe_load(write_table(tmp_path).read_text())
    table["rows"]["ION"] = {"MODEL.WEIGHTS": "/nothing.pth"}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(table))
    words = [str(tmp_path / "small.yaml"), "--out", str(tmp_path / "out"), "--seeds", "0"]
    assert study.main(words) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ION, scenes, seed 0: exit status 1, error: MODEL.WEIGHTS")
