"""However a training came to its end, model_final.pth is there and is of that end."""

import pytest
import torch
from trainer_helpers import Record, assert_same, make_config, run

from ion_d2.engine import checkpoint as checkpoint_module
from ion_d2.engine.hooks import TrainingInterrupted
from ion_d2.engine.trainer import IONTrainer
from ion_d2.errors import IONError

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def evaluations(monkeypatch):
    """Evaluations give a figure that never improves."""

    def evaluate(self):
        self.last_results = {"bbox": {"AP50": 1.0}}
        return self.last_results

    monkeypatch.setattr(IONTrainer, "evaluate", evaluate)


def config(scenes, folder, *opts):
    opts = ("SOLVER.CHECKPOINT_PERIOD", 3, "SOLVER.EMA_DECAY", 0.5, *opts)
    return make_config(scenes, folder, *opts)


def final(folder):
    content = torch.load(folder / "model_final.pth", weights_only=False)
    del content["class_names"]  # not compared, as they are no tensors
    return content


def run_failing(monkeypatch, cfg, error, **options):
    """Train, and fail when model_final.pth is written."""
    write = checkpoint_module.write_atomically

    def fail(path, content):
        if path.endswith("model_final.pth"):
            raise error
        write(path, content)

    with monkeypatch.context() as patch, pytest.raises(type(error)):
        patch.setattr(checkpoint_module, "write_atomically", fail)
        run(cfg, **options)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), IONError("the disk is full")])
def test_cut_off_while_it_is_written(scenes, tmp_path, monkeypatch, error):
    run(config(scenes, tmp_path / "whole"))
    folder = tmp_path / "cut"
    cfg = config(scenes, folder)
    run_failing(monkeypatch, cfg, error)
    run(cfg, resume=True)
    assert (folder / "last_checkpoint").read_text() == "model_final.pth"
    assert_same(final(folder), final(tmp_path / "whole"))
    # And it is one to go on from.
    longer = config(scenes, folder, "SOLVER.MAX_ITER", 8)
    assert run(longer, resume=True).start_iter == 6


def test_an_older_one_does_not_pass_for_it(scenes, tmp_path, monkeypatch):
    run(config(scenes, tmp_path, "SOLVER.MAX_ITER", 3))
    cfg = config(scenes, tmp_path)
    run_failing(monkeypatch, cfg, KeyboardInterrupt(), resume=True)
    assert final(tmp_path)["iteration"] == 2
    run(cfg, resume=True)
    assert final(tmp_path)["iteration"] == 5


def test_a_training_is_shortened_to_what_is_done(scenes, tmp_path):
    with pytest.raises(TrainingInterrupted):
        run(config(scenes, tmp_path), Record(interrupt_at=3))
    run(config(scenes, tmp_path, "SOLVER.MAX_ITER", 4), resume=True)
    stopped = torch.load(tmp_path / "model_0000003.pth", weights_only=False)
    assert final(tmp_path)["iteration"] == 3
    assert_same(final(tmp_path)["model"], stopped["model"])


WATCHED = ("TEST.EVAL_PERIOD", 1, "TEST.BEST_METRIC", "bbox/AP50")


def test_patience_that_is_exhausted_on_resuming(scenes, tmp_path):
    with pytest.raises(TrainingInterrupted):
        run(config(scenes, tmp_path, *WATCHED), Record(interrupt_at=3))
    cfg = config(scenes, tmp_path, *WATCHED, "TEST.PATIENCE", 2)
    run(cfg, resume=True)
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    assert final(tmp_path)["iteration"] == final(tmp_path)["trainer"]["iteration"] == 3
    more = run(config(scenes, tmp_path, *WATCHED), resume=True)
    assert more.start_iter == 4


def test_a_wrong_metric_at_the_end_leaves_what_can_be_resumed(scenes, tmp_path):
    cfg = config(scenes, tmp_path, "TEST.BEST_METRIC", "bbox/AP5")
    with pytest.raises(IONError, match="bbox/AP50"):
        run(cfg)
    run(config(scenes, tmp_path, "TEST.BEST_METRIC", "bbox/AP50"), resume=True)
    assert (tmp_path / "model_best.pth").is_file() and final(tmp_path)["iteration"] == 5
