"""What a training reports: pictures on TensorBoard, and everything on Weights & Biases."""

import sys
import types

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
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
    """Records what one run is told, as the real one takes it: steps may not go back."""

    def __init__(self, options):
        self.options, self.rows, self.id, self.finished = options, [], options["id"] or "abc", False

    def log(self, values, step):
        assert not self.rows or step >= self.rows[-1][0]
        self.rows.append((step, values))

    def finish(self):
        self.finished = True


@pytest.fixture
def runs(monkeypatch):
    """A stand-in for the package wandb; the runs that were started."""
    runs = []
    fake = types.ModuleType("wandb")
    fake.Image = lambda pixels: ("image", pixels.shape)
    fake.init = lambda **options: runs.append(FakeRun(options)) or runs[-1]
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return runs


def test_weights_and_biases_gets_figures_and_pictures_and_goes_on(scenes, tmp_path, runs):
    options = (*OPTIONS, "WANDB_PROJECT", "blood")
    run(make_config(scenes, tmp_path, *options))
    (first,) = runs
    assert first.options["project"] == "blood" and first.options["id"] is None and first.finished
    assert first.options["config"]["SOLVER"]["MAX_ITER"] == 4
    told = {name for _, values in first.rows for name in values}
    assert {"total_loss", "lr", "bbox/AP50"} <= told
    pictures = [v for _, values in first.rows for k, v in values.items() if "detections/" in k]
    assert len(pictures) == 4 and all(
        kind == "image" and np.ndim(shape) for kind, shape in pictures
    )
    run(make_config(scenes, tmp_path, *options, "SOLVER.MAX_ITER", 6), resume=True)
    assert runs[1].options["id"] == "abc" and runs[1].options["resume"] == "allow"
    assert runs[1].rows[0][0] > 3
    run(make_config(scenes, tmp_path, *options))  # from the start: another run
    assert runs[2].options["id"] is None


def test_without_the_package_it_is_told_at_once(scenes, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(IONError, match="WANDB_PROJECT is 'x'.*pip install wandb"):
        IONTrainer(make_config(scenes, tmp_path, "WANDB_PROJECT", "x"))
    IONTrainer(make_config(scenes, tmp_path))
