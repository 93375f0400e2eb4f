"""The last words of train_net.py: where everything is, and commands that work as they stand."""

import re
import shlex
import sys
from pathlib import Path

import pytest
from cli_helpers import load_program, load_tool, says, voc_arguments
from trainer_helpers import make_config

from ion_d2.engine.setup import run_cli
from ion_d2.shell import python_command

pytestmark = pytest.mark.slow

VOC = ["voc_results.json", "detections.json"]


def last_words(out):
    """The files and the commands that the last block of the log tells, by what they are."""
    _, block = out.rsplit("The run is in ", 1)
    files, commands = block.split("What may come next:\n")
    rows = [re.findall(r"^  (\w+(?: \w+)?) +(\S.*)$", part, re.M) for part in (files, commands)]
    return block.splitlines()[0], *map(dict, rows)


@pytest.fixture
def run_words(train_net, capfd, monkeypatch):
    """Runs a command in this process: exit status, stdout and stderr."""

    def run(command):
        python, path, *words = shlex.split(command)
        assert python == shlex.split(python_command())[0]
        if Path(path).name == "train_net.py":
            return train_net(*words)
        monkeypatch.setattr(sys, "argv", [path, *words])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            run_cli(load_program(path).main)
        return (stop.value.code or 0, *capfd.readouterr())

    return run


def test_the_commands_after_a_training(train_net, run_words, scenes, tmp_path):
    out = tmp_path / "my 'own' run"
    opts = ("TEST.BEST_METRIC", "validation/total_loss", "TEST.LOSS", True, "TEST.NUM_PICTURES", 1)
    status, told, err = train_net(*voc_arguments(scenes, out, *opts))
    assert status == 0, err
    place, files, commands = last_words(told)
    assert place == str(out)
    assert {kind: names.split(", ") for kind, names in files.items()} == {
        "weights": ["model_final.pth"],
        "best": ["model_best.pth"],
        "results": ["voc_results.json", "detections.json"],
        "pictures": ["pictures"],
        "curves": ["losses.png", "validation.md", "metrics.json"],
    }
    assert all((out / name).exists() for names in files.values() for name in names.split(", "))
    assert list(commands) == ["evaluate", "report", "train on", "detect", "page"]
    check_page_command(commands.pop("page"), out)
    for what, command in commands.items():
        status, told, err = run_words(command)
        assert status == 0, (what, err)
        if what == "evaluate":
            check_after_evaluation(told, out)
    assert {"detections.json", "test_000000.jpg"} <= {it.name for it in (out / "found").iterdir()}
    assert (out / "report.html").is_file()
    assert '"iteration": 2' in (out / "metrics.json").read_text()


def check_page_command(command, out):
    """It serves until Ctrl-C, so that its words are read here, and no more."""
    _, path, *words = shlex.split(command)
    args = load_program(path).build_parser().parse_intermixed_args(words)
    assert args.config_file == str(out / "config.yaml")
    assert args.opts == ["MODEL.WEIGHTS", str(out / "model_best.pth")]


def check_after_evaluation(told, out):
    _, files, commands = last_words(told)
    assert list(files) == ["results", "pictures"] and list(commands) == ["detect", "page"]
    words = shlex.split(commands["detect"])
    assert str(out / "config_eval.yaml") in words and words[-1] == str(out / "model_best.pth")


def test_files_of_other_evaluations_are_not_told(scenes, tmp_path):
    left_files = load_tool("run_end").left_files
    for name in (*VOC, "coco_instances_results.json", "sem_seg_results.json"):
        (tmp_path / name).touch()
    for opts, expected in (
        ((), VOC),
        (("TEST.SEM_SEG", True), [*VOC, "sem_seg_results.json"]),
    ):
        cfg = make_config(scenes, tmp_path, *opts)
        assert left_files(cfg, str(tmp_path), False) == {"results": expected}


def test_an_evaluation_during_the_training_changes_no_command(scenes, tmp_path):
    (tmp_path / "config_eval.yaml").touch()
    commands = load_tool("run_end").next_commands
    for trained, config in ((True, "config.yaml"), (False, "config_eval.yaml")):
        told = commands(make_config(scenes, tmp_path), str(tmp_path), trained)
        named = {what for what, words in told.items() if str(tmp_path / config) in words}
        assert named == told.keys() and "detect" in named


def test_no_heading_stands_over_no_commands(scenes, tmp_path):
    cfg = make_config(scenes, tmp_path, "MODEL.LOAD_PROPOSALS", True)
    assert load_tool("run_end").describe_end(cfg, trained=False) == f"The run is in {tmp_path}"


def test_a_program_of_ones_own_is_told(scenes, tmp_path, monkeypatch):
    """It alone knows a dataset of a format of its own."""
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "my_training.py"), "--config-file", "x"])
    cfg = make_config(scenes, tmp_path)
    monkeypatch.chdir(tmp_path)
    told = load_tool("run_end").next_commands(cfg, str(tmp_path), True)
    assert {told[x][0] for x in ("evaluate", "train on", "report")} == {"my_training.py"}


def test_resume_evaluates_the_last_checkpoint(train_net, scenes, tmp_path):
    first = ("DATASETS.TEST", "()")
    assert train_net(*voc_arguments(scenes, tmp_path, *first))[0] == 0
    flags = ["--eval-only", "--resume"]
    status, told, err = train_net(*voc_arguments(scenes, tmp_path, flags=flags))
    assert status == 0, err
    assert f"MODEL.WEIGHTS {tmp_path / 'model_final.pth'}" in last_words(told)[2]["detect"]
    result = train_net(*voc_arguments(scenes, tmp_path, *first, flags=flags))
    assert says(result, "DATASETS.TEST names no dataset")


def test_a_run_without_a_test_set(train_net, scenes, tmp_path, monkeypatch):
    config = Path("configs/ion_tiny.yaml").resolve()
    arguments = voc_arguments(scenes, "out", "DATASETS.TEST", "()")
    arguments[arguments.index("configs/ion_tiny.yaml")] = config
    monkeypatch.chdir(tmp_path)  # programs are told as seen from where the user is
    status, told, _ = train_net(*arguments)
    place, files, commands = last_words(told)
    assert (status, place, list(files)) == (0, "out", ["weights", "curves"])
    (command,) = commands.values()
    program = Path(shlex.split(command)[1])
    assert program.resolve() == config.parents[1] / "train_net.py"
