"""Runs that start from the weights of another: which is trained, when, and with what settings."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from study_helpers import CONV5, ROOT, SKIP, calls, make_study, results, run_folders
from torch import nn
from torch.optim.swa_utils import AveragedModel

from ion_d2.errors import IONError
from ion_lab.study import run_study
from ion_lab.study.runs import plan_runs
from ion_lab.study.starting_weights import extract_parts
from ion_lab.study.store import RunFolder
from ion_lab.study.study_data import Pictures
from ion_lab.study.train_process import Training

SCENES = {"train": 1, "test": 1, "families": ["ordinary"], "size": 128, "seed": 7}


def given_to(study, name):
    """The weights that a run was given."""
    return (study.out.absolute() / "runs" / name / "calls.txt").read_text().split()[2]


def behind_one_start(**start):
    """Changes of a table: all its rows start from a training of conv5 with these fields."""
    starts = {"before": {"row": "conv5", **start}}
    return {"starts": starts, "start": "before", "full": {"seeds": [0]}}


def test_a_row_starts_from_another_training(tmp_path):
    changes = {
        "starts": {"pretrained": {"scenes": SCENES}},
        "rows": {"conv5": CONV5, "from": {**SKIP, "start": "pretrained"}},
        "full": {"seeds": [0]},
    }
    study = make_study(tmp_path, changes=changes)
    assert run_study(study) == []
    names = ["conv5-scenes-seed-0", "from-pretrained-seed-0", "from-scenes-seed-0"]
    assert run_folders(study) == names
    start = study.out.absolute() / "runs" / "from-pretrained-seed-0" / "model_final.pth"
    assert given_to(study, "from-scenes-seed-0") == str(start)
    assert [row["row"] for row in results(study)["rows"]] == ["conv5", "from"]


def test_rows_share_a_start_on_their_own_pictures(tmp_path):
    config = str(ROOT / "configs" / "ion_study.yaml")
    changes = behind_one_start(config=config, keys={"SOLVER.MAX_ITER": 7})
    changes["full"] = {"seeds": [0], "keys": {"SOLVER.MAX_ITER": 5}}
    study = make_study(tmp_path, changes=changes)
    assert run_study(study) == []
    runs = study.out.absolute() / "runs"
    names = ["conv5-scenes-before-seed-0", "conv5-scenes-seed-0", "skip-scenes-seed-0"]
    assert run_folders(study) == names
    start = runs / names[0]
    settings = json.loads((start / "run.json").read_text())["settings"]
    assert settings["config"]["SOLVER.MAX_ITER"] == 7 and settings["start"] is None
    # The start's own config file: its backbone's normalization is not that of the others.
    assert settings["config"]["MODEL.VGG.NORM"] == "BRN"
    others = json.loads((runs / "skip-scenes-seed-0" / "run.json").read_text())["settings"]
    assert others["config"]["MODEL.VGG.NORM"] == "GN" and others["start"] == settings
    for name in names[1:]:
        assert given_to(study, name) == str(start / "model_final.pth")


def test_rows_that_differ_in_what_the_start_sets_share_it(tmp_path):
    keys = {"SOLVER.MAX_ITER": 7, "SOLVER.BASE_LR": 0.02}
    rows = {
        "slow": {**CONV5, "SOLVER.BASE_LR": 0.001},
        "long": {**CONV5, "SOLVER.MAX_ITER": 9},
    }
    changes = {"starts": {"before": {"keys": keys}}, "start": "before", "rows": rows}
    table = make_study(tmp_path, changes={**changes, "baseline": "slow"}).table
    runs = plan_runs(table, "full", {"scenes": Pictures("train", "test", {})}, {}, [0])
    slow, long = (run.start.settings["config"] for run in runs)
    assert slow == long and {key: slow[key] for key in keys} == keys
    told = [run.settings["config"] for run in runs]
    assert (told[0]["SOLVER.BASE_LR"], told[1]["SOLVER.MAX_ITER"]) == (0.001, 9)


def test_a_start_is_trained_only_where_its_weights_are_needed(tmp_path):
    study = make_study(tmp_path, changes=behind_one_start())
    assert run_study(study) == []
    runs = study.out / "runs"
    start = runs / "conv5-scenes-before-seed-0"
    begun = {"conv5-scenes-seed-0": [0], "skip-scenes-seed-0": [0]}
    # All is finished: nobody needs the start, be its weights gone or its folder.
    (start / "model_final.pth").unlink()
    assert run_study(study) == [] and calls(study) == {start.name: [0], **begun}
    shutil.rmtree(start)
    assert run_study(study) == [] and calls(study) == begun
    # A finished start without its weights is trained again for a run that needs them.
    shutil.rmtree(runs / "skip-scenes-seed-0")
    assert run_study(study) == []
    (start / "model_final.pth").unlink()
    shutil.rmtree(runs / "skip-scenes-seed-0")
    assert run_study(study) == [] and calls(study) == {start.name: [0, 0], **begun}


def test_rows_take_over_parts_of_a_start(tmp_path):
    changes = behind_one_start(parts=["backbone", "proposal_generator"])
    study = make_study(tmp_path, changes=changes)
    runs = study.out / "runs"
    runs.mkdir(parents=True)
    keys = ("backbone.conv1.weight", "proposal_generator.rpn_head.conv.bias", "roi_heads.x.weight")
    model = {key: torch.rand(2) for key in keys}
    torch.save({"model": model, "optimizer": {}, "iteration": 9}, runs / "prepared.pth")
    assert run_study(study) == []
    for name in ("conv5-scenes-seed-0", "skip-scenes-seed-0"):
        given = torch.load(runs / name / "given.pth", weights_only=True)
        assert list(given) == ["model"] and list(given["model"]) == list(keys[:2])
        assert all(torch.equal(value, model[key]) for key, value in given["model"].items())
        assert not (runs / name / "start.pth").exists()  # it has served
    # A run that takes over all is another one.
    assert run_study(make_study(tmp_path, changes=behind_one_start())) == []
    assert len(run_folders(study)) == 5


def test_parts_are_those_of_the_average_where_there_is_one(tmp_path):
    keys = {"backbone.weight": torch.ones(2), "roi_heads.weight": torch.ones(2)}
    average = AveragedModel(nn.ModuleDict({k.split(".")[0]: nn.Linear(1, 2) for k in keys}))
    saved = {"model": keys, "ema": average.state_dict()}
    torch.save(saved, tmp_path / "start.pth")
    extract_parts(tmp_path / "start.pth", ["backbone"], tmp_path / "parts.pth")
    given = torch.load(tmp_path / "parts.pth", weights_only=True)["model"]
    assert sorted(given) == ["backbone.bias", "backbone.weight"]
    assert torch.equal(given["backbone.weight"], saved["ema"]["module.backbone.weight"])


def test_a_start_that_holds_no_model_is_named(tmp_path):
    torch.save({"weights": {}}, tmp_path / "start.pth")
    with pytest.raises(IONError, match="start.pth"):
        extract_parts(tmp_path / "start.pth", ["backbone"], tmp_path / "parts.pth")


def test_a_damaged_start_is_named(tmp_path):
    changes = behind_one_start(parts=["backbone"])
    told = run_study(make_study(tmp_path, changes=changes))
    names = ["conv5, scenes, seed 0", "skip, scenes, seed 0"]
    assert [sentence.split(":")[0] for sentence in told] == names
    assert all("conv5-scenes-before-seed-0/model_final.pth" in sentence for sentence in told)


def test_a_failed_start_fails_what_starts_from_it(tmp_path):
    changes = {
        "starts": {"pretrained": {"scenes": SCENES}},
        "rows": {"from": {**SKIP, "TEST.EVAL_PERIOD": 1, "start": "pretrained"}},
        "baseline": "from",
        "full": {"seeds": [0]},
    }
    first, second = run_study(make_study(tmp_path, changes=changes))
    assert "not finite" in first and "what it starts from failed" in second


def test_a_row_evaluates_the_models_of_another(tmp_path):
    refined = {"weights_of": "skip", "TEST.BOX_REFINEMENT.ENABLED": True}
    cut = {"seeds": [0], "rows": ["refined"]}
    changes = {"rows": {"refined": refined, "skip": SKIP}, "quick": cut, "baseline": "refined"}
    study = make_study(tmp_path, changes=changes, cut="quick")
    assert run_study(study) == []
    refined, skip = run_folders(study)
    assert (refined, skip) == ("refined-scenes-seed-0", "skip-scenes-seed-0")
    trained = study.out.absolute() / "runs" / skip / "model_final.pth"
    assert given_to(study, refined) == str(trained)
    # Trained once and evaluated apart: repeated, nothing is done again.
    assert run_study(study) == [] and calls(study) == {refined: [0], skip: [0]}
    (evaluated,) = plan_runs(study.table, "quick", {"scenes": Pictures("a", "b", {})}, {})
    words = Training(evaluated, RunFolder(tmp_path), RunFolder(tmp_path / "skip")).arguments()
    assert "--eval-only" in words and "--resume" not in words
    assert words[words.index("TEST.BOX_REFINEMENT.ENABLED") + 1] == "True"
    assert "TEST.BOX_REFINEMENT.ENABLED" not in evaluated.start.overrides


def test_what_is_evaluated_may_itself_start_from_another_training(tmp_path):
    rows = {"conv5": CONV5, "skip": SKIP, "refined": {"weights_of": "skip"}}
    rows["refined"]["TEST.BOX_REFINEMENT.ENABLED"] = True
    changes = {**behind_one_start(keys={"SOLVER.MAX_ITER": 7}), "rows": rows}
    changes["full"] = {"seeds": [0], "rows": ["refined"]}
    study = make_study(tmp_path, changes=changes)
    assert run_study(study) == []
    first, refined, skip = run_folders(study)
    assert first == "conv5-scenes-before-seed-0" and set(map(len, calls(study).values())) == {1}
    runs = study.out.absolute() / "runs"
    assert given_to(study, skip) == str(runs / first / "model_final.pth")
    assert given_to(study, refined) == str(runs / skip / "model_final.pth")
    # Weights that were lost are trained again, from what they started from.
    shutil.rmtree(runs / refined)
    (runs / skip / "model_final.pth").unlink()
    assert run_study(study) == []
    lines = (runs / skip / "calls.txt").read_text().splitlines()
    assert lines[2].split()[2] == str(runs / first / "model_final.pth")
