"""A new training in the folder of another one: nothing of that one passes for its own."""

import json
from pathlib import Path

import pytest
from trainer_helpers import Record, make_config, run

from ion_d2.engine.hooks import TrainingInterrupted
from ion_d2.evaluation import evaluation_folder
from ion_lab.report.reporting_trainer import ReportingTrainer

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_test")]

RESULTS = ["voc_results.json", "detections.json", "sem_seg_results.json"]
RESULTS += ["coco_instances_results.json"]
CONFIGS = ["config.yaml", "config_eval.yaml"]
FILES = ["last_checkpoint", "model_final.pth", "model_best.pth", "evaluations.json", *RESULTS]
FILES += ["metrics.json", "events.out.tfevents.1.machine.2.0"]


def begin(cfg):
    """Train for one step, without an evaluation."""
    with pytest.raises(TrainingInterrupted):
        run(cfg, Record(interrupt_at=0))


def fill(folder, names):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text("earlier")


def test_what_an_earlier_training_left_is_set_aside(scenes, tmp_path):
    sets = tuple(f"voc:{scenes}:{split}" for split in ("test", "trainval"))
    cfg = make_config(scenes, tmp_path, "DATASETS.TEST", sets)
    inner = [Path(evaluation_folder(cfg, name)).name for name in sets]
    for place in ("", *inner):
        fill(tmp_path / place, RESULTS if place else [*FILES, *CONFIGS, "mine.json"])
    begin(cfg)
    left = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    moved = {str(name) for name in left if name.startswith("earlier/")}
    assert moved == {
        *(f"earlier/{name}" for name in (*FILES, *CONFIGS)),
        *(f"earlier/{place}/{name}" for place in inner for name in RESULTS),
    }
    assert "mine.json" in left and not {*FILES[1:-2], FILES[-1], "config_eval.yaml"} & left
    assert "earlier" not in (tmp_path / "metrics.json").read_text()
    assert "OUTPUT_DIR" in (tmp_path / "config.yaml").read_text()
    assert (tmp_path / "earlier" / "config.yaml").read_text() == "earlier"
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000000.pth"


def test_what_the_config_names_stays(scenes, tmp_path):
    """A training may start from the weights in its folder, again and again."""
    run(make_config(scenes, tmp_path, "SOLVER.MAX_ITER", 1))
    cfg = make_config(scenes, tmp_path, "MODEL.WEIGHTS", tmp_path / "model_final.pth")
    for _ in range(2):
        begin(cfg)
    assert (tmp_path / "model_final.pth").is_file()
    assert not (tmp_path / "earlier" / "model_final.pth").exists()


def test_a_resumed_training_keeps_its_own(scenes, tmp_path):
    cfg = make_config(scenes, tmp_path)
    begin(cfg)
    fill(tmp_path, RESULTS)
    run(cfg, resume=True)
    assert all((tmp_path / name).is_file() for name in RESULTS)
    lines = (tmp_path / "metrics.json").read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in lines][0] == 0
    assert not (tmp_path / "earlier").exists()


def test_the_report_and_the_curves_go_with_it(tmp_path):
    named = {*FILES[:-1], "events.out.tfevents.*"}
    assert {*named, "report.html", "validation.md", "losses.png"} == {
        *ReportingTrainer.trusted_files
    }
