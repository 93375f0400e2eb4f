"""What a training reports: pictures on TensorBoard, and everything on Weights & Biases."""

import json
import sys
import types

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import writer
from torch.utils.tensorboard.writer import EventFileWriter
from trainer_helpers import make_config, run

from ion_d2.engine.trainer import IONTrainer
from ion_d2.errors import IONError

pytestmark = pytest.mark.slow

# The training's own pictures at iterations 0 and 2, those of the evaluation after 2 and 4.
OPTIONS = ("SOLVER.MAX_ITER", 4, "TEST.EVAL_PERIOD", 2, "TEST.NUM_PICTURES", 2, "VIS_PERIOD", 2)


def test_pictures_reach_tensorboard(scenes, tmp_path):
    run(make_config(scenes, tmp_path, *OPTIONS))
    log = EventAccumulator(str(tmp_path), size_guidance={"images": 0})
    log.Reload()
    tags = log.Tags()["images"]
    ours = [tag for tag in tags if tag.startswith("detections/")]
    assert len(ours) == 2 and len(tags) > 2  # Detectron2's proposals beside ours
    for tag in ours:
        assert [event.step for event in log.Images(tag)] == [1, 4]
        assert log.Images(tag)[0].width > 2 * 640  # ground truth beside detections
    assert "bbox/AP50" in log.Tags()["scalars"]


class FakeRun:
    """A run of wandb, which copies what event files tell that are opened while it is under way."""

    def __init__(self, options):
        self.options, self.id, self.finished = options, options["id"] or "abc", False
        self.folders, self.told = [], []  # of event files; tags with their iterations

    def finish(self):
        self.finished = True


@pytest.fixture
def runs(monkeypatch):
    """A stand-in for the package wandb; the runs that were started."""
    runs = []

    def init(**options):
        assert writer.EventFileWriter is EventFileWriter  # wandb refuses to patch it twice
        run = FakeRun(options)
        runs.append(run)

        class Copying(EventFileWriter):
            def __init__(self, folder, *args, **kwargs):
                run.folders.append(folder)
                super().__init__(folder, *args, **kwargs)

            def add_event(self, event):
                assert not run.finished
                run.told += [(value.tag, event.step) for value in event.summary.value]
                super().add_event(event)

        monkeypatch.setattr(writer, "EventFileWriter", Copying)
        return run

    fake = types.ModuleType("wandb")
    fake.init = init
    fake.tensorboard = types.SimpleNamespace(
        unpatch=lambda: monkeypatch.setattr(writer, "EventFileWriter", EventFileWriter)
    )
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return runs


def test_weights_and_biases_gets_figures_and_pictures_and_goes_on(scenes, tmp_path, runs):
    options = (*OPTIONS, "WANDB_PROJECT", "blood")
    run(make_config(scenes, tmp_path, *options))
    (first,) = runs
    assert first.options["project"] == "blood" and first.options["id"] is None and first.finished
    assert first.options["config"]["SOLVER"]["MAX_ITER"] == 4
    assert first.options["sync_tensorboard"] and first.folders == [str(tmp_path)]
    tags = {tag for tag, _ in first.told}
    assert {"total_loss", "lr", "bbox/AP50"} <= tags
    assert len([tag for tag, _ in first.told if tag.startswith("detections/")]) == 4
    run(make_config(scenes, tmp_path, *options, "SOLVER.MAX_ITER", 6), resume=True)
    assert runs[1].options["id"] == "abc" and runs[1].options["resume"] == "allow"
    assert min(step for _, step in runs[1].told) > 3
    run(make_config(scenes, tmp_path, *options))  # from the start: another run
    assert runs[2].options["id"] is None


def test_without_the_package_it_is_told_at_once(scenes, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(IONError, match="WANDB_PROJECT is 'x'.*pip install wandb"):
        IONTrainer(make_config(scenes, tmp_path, "WANDB_PROJECT", "x"))
    IONTrainer(make_config(scenes, tmp_path))


def test_the_row_of_an_evaluation_has_the_figures_of_the_training(scenes, tmp_path):
    opts = ("SOLVER.MAX_ITER", 40, "TEST.EVAL_PERIOD", 20, "TEST.NUM_PICTURES", 0)
    run(make_config(scenes, tmp_path, *opts))
    rows = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    first, second, last = rows
    assert [row["iteration"] for row in rows] == [19, 39, 40]
    for row in (first, second):
        assert {"total_loss", "images_per_second", "max_rss_mb"} <= {*row}
    assert "bbox/AP50" in first and "bbox/AP50" in last
