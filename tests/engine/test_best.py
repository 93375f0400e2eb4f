"""The best checkpoint and early stopping, over made-up figures and across interruptions."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from trainer_helpers import assert_same, make_config, run

from ion_d2.engine.best import KeepBest
from ion_d2.engine.trainer import IONTrainer
from ion_d2.errors import IONError

pytestmark = pytest.mark.slow

FIGURES = [10.0, 30.0, math.nan, 20.0, 30.0, 40.0]


@pytest.fixture
def evaluated(monkeypatch):
    """Evaluations give the figures above; notes the weights they saw, by finished iterations."""
    states = {}

    def evaluate(self):
        done = self.scheduler.last_epoch
        states[done] = {k: v.clone() for k, v in self.evaluated_model.state_dict().items()}
        value = FIGURES[done - 1]
        self.last_results = {"bbox": {"AP50": value}, "validation": {"total_loss": value}}
        return self.last_results

    monkeypatch.setattr(IONTrainer, "evaluate", evaluate)
    return states


def config(scenes, output, *opts):
    return make_config(
        scenes, output, "TEST.EVAL_PERIOD", 1, "TEST.BEST_METRIC", "bbox/AP50",
        "SOLVER.CHECKPOINT_PERIOD", 1, *opts,
    )  # fmt: skip


def best(folder):
    return torch.load(folder / "model_best.pth")


def strict_json(text):
    def refuse(word):
        raise ValueError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def history(folder):
    return strict_json((folder / "evaluations.json").read_text())


@pytest.mark.parametrize(("metric", "iteration"), [("bbox/AP50", 6), ("validation/total_loss", 1)])
def test_best_weights_are_kept_apart(scenes, tmp_path, evaluated, metric, iteration):
    run(config(scenes, tmp_path, "TEST.BEST_METRIC", metric, "SOLVER.EMA_DECAY", 0.5))
    kept = best(tmp_path)
    assert kept["iteration"] == iteration - 1 and kept[metric] == FIGURES[iteration - 1]
    assert_same(kept["model"], evaluated[iteration])
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"


def test_patience_stops_the_training_in_good_order(scenes, tmp_path, evaluated):
    cfg = config(scenes, tmp_path, "TEST.PATIENCE", 3)
    trainer = run(cfg)
    # 30 after 2 iterations; nan, 20 and 30 after that are no improvement.
    assert trainer.iter == 4 and trainer.last_results["bbox"]["AP50"] == 30
    assert best(tmp_path)["iteration"] == 1
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    assert torch.load(tmp_path / "model_final.pth")["iteration"] == 4
    # Resumed it stops at once; with more patience it goes on.
    assert run(cfg, resume=True).iter == 5
    more = run(config(scenes, tmp_path, "TEST.PATIENCE", 4), resume=True)
    assert more.iter == 6 and best(tmp_path)["iteration"] == 5


def test_killed_before_an_evaluation_it_is_made_up_for(scenes, tmp_path, evaluated):
    """A checkpoint is written before the evaluation; what follows equals an unbroken run."""
    cfg = config(scenes, tmp_path, "TEST.PATIENCE", 3)
    expected = run(cfg)
    whole = history(tmp_path)
    for known in (2, 4):  # evaluations on disk when it was killed, after the third step
        (tmp_path / "evaluations.json").write_text(json.dumps(whole[:known]))
        (tmp_path / "last_checkpoint").write_text("model_0000002.pth")
        resumed = run(cfg, resume=True)
        assert history(tmp_path) == whole and resumed.iter == 4
    assert_same(expected.model, resumed.model)


def test_killed_in_the_last_evaluation_it_is_made_up_for(scenes, tmp_path, evaluated):
    """Nothing is left to train then."""
    for period, known in ((1, 5), (0, 0)):
        folder = tmp_path / str(period)
        cfg = config(scenes, folder, "TEST.EVAL_PERIOD", period)
        run(cfg)
        whole = history(folder)
        assert len(whole) == known + 1
        (folder / "evaluations.json").write_text(json.dumps(whole[:known]))
        (folder / "model_best.pth").unlink()
        run(cfg, resume=True)
        assert history(folder) == whole and best(folder)["iteration"] == 5
        run(cfg, resume=True)  # and only once
        assert history(folder) == whole


def test_an_earlier_training_in_the_folder_has_no_say(scenes, tmp_path, evaluated):
    earlier = {"metric": "bbox/AP50", "iteration": 1, "value": 99.0}
    (tmp_path / "evaluations.json").write_text(json.dumps([earlier]))
    # It ends before its first evaluation in the midst, and goes on.
    run(config(scenes, tmp_path, "TEST.EVAL_PERIOD", 2, "SOLVER.MAX_ITER", 1))
    run(config(scenes, tmp_path, "TEST.EVAL_PERIOD", 2), resume=True)
    assert 99.0 not in [entry["value"] for entry in history(tmp_path)]
    assert best(tmp_path)["iteration"] == 5


def test_another_metric_on_a_resume_is_refused_and_nothing_is_lost(scenes, tmp_path, evaluated):
    run(config(scenes, tmp_path, "SOLVER.MAX_ITER", 2))
    files = [tmp_path / name for name in ("evaluations.json", "model_best.pth")]
    before = [file.read_bytes() for file in files]
    cfg = config(scenes, tmp_path, "TEST.BEST_METRIC", "bbox/AP", "SOLVER.MAX_ITER", 4)
    with pytest.raises(IONError, match="evaluations.json and model_best.pth are of bbox/AP50; set"):
        run(cfg, resume=True)
    assert [file.read_bytes() for file in files] == before


@pytest.mark.parametrize(
    ("metric", "sign"),
    [
        ("bbox/AP50", 1),
        ("bbox/AP50-glossy bottle", 1),
        ("voc:glossy/validation/set:test/bbox/AP", 1),
        ("validation/total_loss", -1),
        ("voc:set:test/validation/loss_cls", -1),
    ],
)
def test_less_is_better_of_losses_alone(tmp_path, metric, sign):
    assert KeepBest(metric, 0, 1, SimpleNamespace(save_dir=tmp_path), None)._sign == sign


def test_metric_that_is_not_there_is_told_and_nothing_is_lost(scenes, tmp_path, evaluated):
    cfg = config(scenes, tmp_path, "TEST.BEST_METRIC", "bbox/AP5", "SOLVER.CHECKPOINT_PERIOD", 99)
    with pytest.raises(IONError, match="'bbox/AP5'.*bbox/AP50, validation/total_loss"):
        run(cfg)
    assert (tmp_path / "model_0000000.pth").is_file()
    right = config(scenes, tmp_path)
    assert run(right, resume=True).start_iter == 1


NOTHING = {"AP": math.nan, "AP50": math.nan}  # COCO's, which lacks the classes then
SOME = {"AP": 5.0, "AP50": 9.0, "AP-cat": math.nan, "AP-dog": 5.0}


@pytest.mark.parametrize(
    ("nothing", "some", "metric"),
    [
        ({"bbox": NOTHING}, {"bbox": SOME}, "bbox/AP-dog"),
        ({"bbox": NOTHING}, {"bbox": SOME}, "bbox/AP"),
        ({}, {"bbox": SOME}, "bbox/AP"),
        ({"bbox": NOTHING, "validation": {"total_loss": 1.0}}, {"bbox": SOME}, "bbox/AP-dog"),
        (
            {"coco:a/b": {"bbox": NOTHING}, "c": {"bbox": SOME}},
            {"coco:a/b": {"bbox": SOME}, "c": {"bbox": SOME}},
            "coco:a/b/bbox/AP-dog",
        ),
        ({"a": {}, "b": {"bbox": SOME}}, {"a": {"bbox": SOME}, "b": {}}, "a/bbox/AP"),
    ],
)
def test_a_training_goes_on_where_an_evaluation_finds_nothing(
    scenes, tmp_path, monkeypatch, nothing, some, metric
):
    def evaluate(self):
        self.last_results = nothing if self.scheduler.last_epoch < 3 else some
        return self.last_results

    monkeypatch.setattr(IONTrainer, "evaluate", evaluate)
    opts = ("TEST.BEST_METRIC", metric, "TEST.PATIENCE", 1)
    run(config(scenes, tmp_path, *opts, "SOLVER.MAX_ITER", 2))
    run(config(scenes, tmp_path, *opts, "SOLVER.MAX_ITER", 4), resume=True)
    assert [entry["value"] for entry in history(tmp_path)] == [None, None, 5.0, 5.0]
    assert best(tmp_path)["iteration"] == 2
    for line in (tmp_path / "metrics.json").read_text().splitlines():
        strict_json(line)


def test_the_history_of_earlier_versions_is_read(scenes, tmp_path, evaluated):
    """They wrote NaN, which is no JSON."""
    cfg = config(scenes, tmp_path, "TEST.PATIENCE", 3)
    run(config(scenes, tmp_path, "SOLVER.MAX_ITER", 3))
    path = tmp_path / "evaluations.json"
    path.write_text(path.read_text().replace("null", "NaN"))
    assert run(cfg, resume=True).iter == 4
    assert [e["value"] for e in history(tmp_path)] == [10.0, 30.0, None, 20.0, 30.0]


def test_broken_history_is_named(scenes, tmp_path, evaluated):
    run(config(scenes, tmp_path, "SOLVER.MAX_ITER", 2))
    (tmp_path / "evaluations.json").write_text("[{}]")
    with pytest.raises(IONError, match="evaluations.json cannot be read"):
        run(config(scenes, tmp_path, "SOLVER.MAX_ITER", 3), resume=True)


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (("TEST.PATIENCE", -1), "TEST.PATIENCE is -1"),
        (("TEST.BEST_METRIC", "", "TEST.PATIENCE", 2), "set TEST.BEST_METRIC"),
        (("TEST.EVAL_PERIOD", 0, "TEST.PATIENCE", 2), "TEST.EVAL_PERIOD is 0"),
        (("DATASETS.TEST", "()"), "DATASETS.TEST names no dataset"),
        (("TEST.BEST_METRIC", "", "DATASETS.TEST", "()", "TEST.LOSS", True), "TEST.LOSS is True"),
    ],
)
def test_wrong_settings(scenes, tmp_path, opts, words):
    with pytest.raises(IONError, match=words):
        IONTrainer(config(scenes, tmp_path, *opts))


def test_early_stopping_ends_as_the_last_step_does(scenes, tmp_path, monkeypatch):
    """With test-time augmentation and the comparison with what is expected, also once resumed."""
    augmented = []

    def test(cls, cfg, model):
        augmented.append(cfg.TEST.AUG.ENABLED)
        return {"bbox": {"AP50": 1.0}}

    monkeypatch.setattr(IONTrainer, "test", classmethod(test))
    opts = ("TEST.PATIENCE", 1, "TEST.AUG.ENABLED", True)
    run(config(scenes, tmp_path, *opts))
    assert augmented == [False, False, True]
    cfg = config(scenes, tmp_path, *opts, "TEST.EXPECTED_RESULTS", "[['bbox', 'AP50', 7.0, 0.1]]")
    with pytest.raises(SystemExit) as stop:
        run(cfg, resume=True)
    assert stop.value.code == 1 and augmented == [False, False, True, True]
