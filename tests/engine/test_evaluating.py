"""Evaluations in the midst of a training and at its end, and what survives a failure in them."""

import json
from concurrent.futures import ThreadPoolExecutor
from functools import partialmethod

import pytest
from trainer_helpers import assert_same, make_config, run

from ion_d2.engine import trainer as trainer_module
from ion_d2.engine.trainer import IONTrainer
from ion_d2.errors import IONError


@pytest.fixture
def evaluations(monkeypatch):
    """Iterations finished at each evaluation; none is made."""
    done = []

    def evaluate(self):
        done.append(self.scheduler.last_epoch)
        self.last_results = {}
        return {}

    monkeypatch.setattr(IONTrainer, "evaluate", evaluate)
    return done


@pytest.mark.parametrize("step", [2, 3])
def test_what_failed_is_not_evaluated(scenes, tmp_path, evaluations, monkeypatch, step):
    """In the last step neither, where Detectron2 does: other processes would wait in the step."""

    def fail(self):
        if self.iter == step - 1:
            raise IONError("picture cannot be read")

    monkeypatch.setattr(IONTrainer, "run_step", fail)
    trainer = IONTrainer(make_config(scenes, tmp_path, "SOLVER.MAX_ITER", 3))
    with pytest.raises(IONError, match="picture"):
        trainer.train()
    assert evaluations == []


@pytest.mark.parametrize("period", [100, 2])
def test_a_checkpoint_is_written_before_an_evaluation(scenes, tmp_path, monkeypatch, period):
    """Killed in the second evaluation, the training goes on from there, beginning with that."""
    opts = ("TEST.EVAL_PERIOD", 2, "SOLVER.CHECKPOINT_PERIOD", period)
    expected = run(make_config(scenes, tmp_path / "whole", *opts, "DATASETS.TEST", "()"))

    def die(self):
        if self.iter == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(IONTrainer, "evaluate", die)
    cfg = make_config(scenes, tmp_path, *opts)
    with pytest.raises(KeyboardInterrupt):
        run(cfg)
    assert (tmp_path / "last_checkpoint").read_text() == "model_evaluating.pth"
    done = []
    monkeypatch.setattr(IONTrainer, "evaluate", lambda self: done.append(self.storage.iter))
    resumed = run(cfg, resume=True)
    assert resumed.start_iter == 4 and done == [3, 6]
    assert not (tmp_path / "model_evaluating.pth").exists()  # it has served
    assert_same(expected.model, resumed.model)


def figures(folder):
    """Iteration -> AP50 of the evaluation after it, in the order in which they were written."""
    lines = map(json.loads, (folder / "metrics.json").read_text().splitlines())
    return [(x["iteration"], x["bbox/AP50"]) for x in lines if "bbox/AP50" in x]


@pytest.mark.parametrize("metric", ["", "bbox/AP50"])
def test_every_evaluation_is_in_the_metrics(scenes, tmp_path, monkeypatch, metric):
    """Also those within 20 iterations, and one in which the training was killed."""

    def evaluate(self, killed=()):
        done = self.scheduler.last_epoch
        if done in killed:
            raise KeyboardInterrupt
        self.last_results = {"bbox": {"AP50": 10.0 * done}}
        return self.last_results

    opts = ("TEST.EVAL_PERIOD", 2, "TEST.BEST_METRIC", metric)
    cfg = make_config(scenes, tmp_path, *opts)
    monkeypatch.setattr(IONTrainer, "evaluate", partialmethod(evaluate, killed=[4]))
    with pytest.raises(KeyboardInterrupt):
        run(cfg)
    monkeypatch.setattr(IONTrainer, "evaluate", evaluate)
    run(cfg, resume=True)
    assert figures(tmp_path) == [(1, 20.0), (3, 40.0), (6, 60.0)]


@pytest.mark.parametrize("metric", ["", "bbox/AP50"])
def test_an_evaluation_again_at_the_end_has_the_number_of_the_end(
    scenes, tmp_path, monkeypatch, metric
):
    def evaluate(self):
        self.last_results = {"bbox": {"AP50": 10.0 * self.iter}}
        return self.last_results

    monkeypatch.setattr(IONTrainer, "evaluate", evaluate)
    cfg = make_config(scenes, tmp_path, "SOLVER.MAX_ITER", 3, "TEST.BEST_METRIC", metric)
    run(cfg)
    run(cfg, resume=True)  # no step is left to do
    assert figures(tmp_path) == [(3, 30.0)] * 2


def test_none_is_written_twice(scenes, tmp_path, evaluations):
    opts = ("TEST.EVAL_PERIOD", 2, "SOLVER.CHECKPOINT_PERIOD", 2)
    run(make_config(scenes, tmp_path, *opts))
    assert evaluations == [2, 4, 6]
    assert not (tmp_path / "model_evaluating.pth").exists()


def test_a_changed_learning_rate_holds_from_the_first_resumed_step_on(scenes, tmp_path):
    opts = ("DATASETS.TEST", "()", "SOLVER.CHECKPOINT_PERIOD", 3, "SOLVER.WARMUP_ITERS", 0)
    run(make_config(scenes, tmp_path, *opts, "SOLVER.BASE_LR", 0.01))
    (tmp_path / "last_checkpoint").write_text("model_0000002.pth")

    def resumed(rate):
        trainer = IONTrainer(make_config(scenes, tmp_path, *opts, "SOLVER.BASE_LR", rate))
        trainer.resume_or_load(resume=True)
        return trainer

    before, after = resumed(0.01), resumed(0.002)
    assert before.start_iter == after.start_iter == 3
    for one, other in zip(before.optimizer.param_groups, after.optimizer.param_groups):
        assert 0 < one["lr"] < 0.01 and other["lr"] == pytest.approx(0.2 * one["lr"])


def test_processes_that_find_other_checkpoints_are_refused(scenes, tmp_path, monkeypatch):
    trainer = IONTrainer(make_config(scenes, tmp_path, "DATASETS.TEST", "()"))
    monkeypatch.setattr(trainer_module.comm, "all_gather", lambda value: [value, 2])
    with pytest.raises(IONError, match="start from the iterations 0, 2: .*OUTPUT_DIR.*share"):
        trainer.resume_or_load(resume=True)


def test_a_training_may_run_in_a_thread(scenes, tmp_path, evaluations):
    """Where no signal can be listened to, as in a notebook's or a tuner's."""
    cfg = make_config(scenes, tmp_path, "SOLVER.MAX_ITER", 1)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(run, cfg).result().iter == 1
