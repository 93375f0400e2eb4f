"""The moving average of the weights: its values, its checkpoints, and what is evaluated."""

from pathlib import Path

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.engine import DefaultPredictor, HookBase
from model_helpers import small_config
from trainer_helpers import assert_same, make_config, run

from ion_d2.engine.averaging import build_average
from ion_d2.engine.checkpoint import IONCheckpointer
from ion_d2.engine.setup import build_model
from ion_d2.engine.trainer import IONTrainer
from ion_d2.errors import IONError
from ion_lab.study.starting_weights import PARTS, extract_parts

STEPS = 5


@pytest.fixture
def seen(monkeypatch):
    """The weights that each evaluation was given."""
    states = []

    def test(cls, cfg, model, evaluators=None):
        states.append({k: v.clone() for k, v in model.state_dict().items()})
        return {}

    monkeypatch.setattr(IONTrainer, "test", classmethod(test))
    return states


class Record(HookBase):
    """Notes the trained weights after each step."""

    def __init__(self):
        self.states = []

    def after_step(self):
        state = self.trainer.model.state_dict()
        self.states.append({k: v.clone() for k, v in state.items()})


def config(scenes, output, *opts):
    return make_config(
        scenes, output, "SOLVER.EMA_DECAY", 0.3, "SOLVER.MAX_ITER", STEPS, "SOLVER.BASE_LR", 0.1,
        *opts,
    )  # fmt: skip


def recursion(states, name, decay):
    """The definition, in float64: the first weights, then the warm-up of the decay."""
    average = states[0][name].double()
    for n, state in enumerate(states[1:], start=1):
        keep = min(decay, (1 + n) / (10 + n))
        average = keep * average + (1 - keep) * state[name].double()
    return average


def test_average_is_evaluated_and_follows_the_definition(scenes, tmp_path, seen):
    record = Record()
    trainer = run(config(scenes, tmp_path), record)
    (evaluated,) = seen
    parameters = dict(trainer.model.named_parameters())
    assert len(record.states) == STEPS and parameters
    moved = 0
    for name, value in evaluated.items():
        if name in parameters:
            expected = recursion(record.states, name, 0.3)
            torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-7)
            moved += not torch.equal(value, parameters[name])
        else:
            assert torch.equal(value, record.states[-1][name]), name
    assert moved > 10


def earlier_layout(path):
    """Rewrite a checkpoint as those of before: the trained weights are "model"."""
    stored = torch.load(path, weights_only=False)
    stored["model"] = stored.pop("trained")
    torch.save(stored, path)


@pytest.fixture(params=["today's layout", "the earlier one"])
def rewritten(request):
    """What is done to a checkpoint before it is read."""
    return earlier_layout if request.param == "the earlier one" else lambda path: None


def test_checkpoint_gives_the_average_to_all_but_a_resumed_training(
    scenes, tmp_path, seen, rewritten
):
    cfg = config(scenes, tmp_path)
    trainer = run(cfg)
    path = str(tmp_path / "model_final.pth")
    rewritten(path)
    model = build_model(cfg)
    IONCheckpointer(model).load_complete(path)
    assert_same(model, seen[0])
    extract_parts(Path(path), PARTS, tmp_path / "parts.pth")
    assert_same(torch.load(tmp_path / "parts.pth")["model"], seen[0])
    # A training that starts from the file, and one that resumes without an average.
    start = IONTrainer(config(scenes, tmp_path / "new", "MODEL.WEIGHTS", path))
    start.resume_or_load(resume=False)
    plain = IONTrainer(config(scenes, tmp_path, "SOLVER.EMA_DECAY", 0.0))
    plain.resume_or_load(resume=True)
    assert_same(start.evaluated_model, start.model)
    assert_same(start.model, seen[0])
    assert_same(plain.model, trainer.model)


def test_detectron2s_own_readers_get_the_average(scenes, tmp_path, seen):
    cfg = config(scenes, tmp_path)
    run(cfg)
    cfg.defrost()
    cfg.MODEL.WEIGHTS = path = str(tmp_path / "model_final.pth")
    assert_same(DefaultPredictor(cfg).model, seen[0])
    model = build_model(cfg)
    DetectionCheckpointer(model).load(path)
    assert_same(model, seen[0])
    stored = torch.load(path)  # whose tensors are not there twice
    for key, value in stored["model"].items():
        assert value.data_ptr() == stored["ema"][f"module.{key}"].data_ptr()


def test_resumed_average_equals_uninterrupted_bit_for_bit(scenes, tmp_path, seen, rewritten):
    expected = run(config(scenes, tmp_path / "whole"))
    cut = config(scenes, tmp_path / "cut", "SOLVER.CHECKPOINT_PERIOD", 3)
    run(cut)
    (tmp_path / "cut" / "last_checkpoint").write_text("model_0000002.pth")
    rewritten(tmp_path / "cut" / "model_0000002.pth")
    resumed = run(cut, resume=True)
    assert resumed.start_iter == 3 and int(resumed.averaged.n_averaged) == STEPS
    assert_same(expected.averaged, resumed.averaged)
    assert_same(expected.model, resumed.model)


def test_weights_that_rest_stay_exactly():
    model = torch.nn.Linear(3, 3)
    average = build_average(small_config("SOLVER.EMA_DECAY", 0.9), model)
    for _ in range(20):
        average.update_parameters(model)
    assert torch.equal(average.module.weight, model.weight)


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (("SOLVER.EMA_DECAY", 1.0), "SOLVER.EMA_DECAY is 1.0"),
        (("SOLVER.EMA_DECAY", 0.9, "TEST.PRECISE_BN.ENABLED", True), "TEST.PRECISE_BN"),
    ],
)
def test_wrong_settings(opts, words):
    with pytest.raises(IONError, match=words):
        build_average(small_config(*opts), torch.nn.Linear(1, 1))
