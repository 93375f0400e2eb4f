"""A training that diverges stops in that step, with one sentence, and keeps what was good."""

from types import SimpleNamespace

import pytest
import torch
from detectron2.engine import HookBase
from detectron2.modeling.proposal_generator import RPN
from detectron2.utils.events import get_event_storage
from torch import nn
from trainer_helpers import Record, assert_same, make_config, run

from ion_d2.engine.checkpoint import IONCheckpointer
from ion_d2.engine.finite import (
    _ELSEWHERE,
    NotFiniteError,
    check_gradients,
    check_losses,
    check_scale,
    check_weights,
    describe,
)
from ion_d2.engine.steps import AMPPassTrainer, PassTrainer
from ion_d2.engine.trainer import IONTrainer
from ion_d2.errors import IONError

pytestmark = pytest.mark.slow

NAN, INF = float("nan"), float("inf")


def losses(**values):
    return {name: torch.tensor(value) for name, value in values.items()}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"a": NAN, "b": 1.0}, "^a is nan$"),
        ({"a": INF, "b": 1.0}, "^a is inf$"),
        ({"a": INF, "b": -INF}, "^a is inf, b is -inf$"),
        ({"a": 1.0, "b": NAN, "c": INF}, "^b is nan, c is inf$"),
    ],
)
def test_losses_are_named(values, words):
    with pytest.raises(FloatingPointError, match=words):
        check_losses(losses(**values))
    check_losses(losses(a=1.0, b=-3e38))


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_one_bad_number_in_weights_or_gradients_is_found(value, dtype):
    model = nn.Linear(100, 100, dtype=dtype)
    nn.init.constant_(model.weight, 1000.0)  # whose sum exceeds what float16 holds
    for parameter in model.parameters():
        parameter.grad = parameter.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    check_weights(model)
    check_gradients(optimizer)
    model.weight.grad[3, 5] = value
    with pytest.raises(FloatingPointError, match="gradient"):
        check_gradients(optimizer)
    model.weight.data[3, 5] = value
    with pytest.raises(FloatingPointError, match="weights"):
        check_weights(model)


def test_mixed_precision_may_skip_some_steps_but_not_all():
    check_scale(2.0**-8)
    with pytest.raises(FloatingPointError, match="skipped"):
        check_scale(2.0**-30)


class Break(HookBase):
    """From a given step on, makes something of the model not finite."""

    def __init__(self, what, step=3):
        self.what, self.step = what, step

    def before_step(self):
        if self.trainer.iter != self.step:
            return
        model, last = self.trainer.model, self.trainer.model.roi_heads.box_predictor.cls_score
        if self.what == "loss":
            last.bias.data[0] = NAN
        elif self.what == "gradient":
            last.weight.register_hook(lambda gradient: gradient * INF)
        elif self.what == "proposals":
            next(m for m in model.modules() if isinstance(m, RPN)).rpn_head.conv.bias.data[:] = INF


@pytest.mark.parametrize("passes", [0, 1])
@pytest.mark.parametrize(
    ("what", "words"),
    [("loss", "loss_cls is nan"), ("gradient", "a gradient is not"), ("proposals", "Inf/NaN")],
)
def test_a_step_tells_and_the_last_good_checkpoint_stays(scenes, tmp_path, what, words, passes):
    opts = ("SOLVER.CHECKPOINT_PERIOD", 1, "SOLVER.IMS_PER_PASS", passes, "DATASETS.TEST", "()")
    cfg = make_config(scenes, tmp_path, *opts)
    with pytest.raises(IONError, match=words) as error:
        run(cfg, Break(what))
    text = str(error.value)
    assert "iteration 3" in text and "SOLVER.BASE_LR" in text and ".jpg" in text
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000002.pth"
    check_state(torch.load(tmp_path / "model_0000002.pth", weights_only=False)["model"])


def check_state(state):
    assert all(torch.isfinite(value).all() for value in state.values())


def nan_in_step(monkeypatch, *steps):
    """The model meets a NaN in some steps: its statistics have it, and then its loss."""
    forward = IONTrainer.build_model

    def build(cfg):
        model = forward(cfg)
        bottom_up = model.backbone.bottom_up

        def spoil(module, inputs, output):
            if get_event_storage().iter not in steps:
                return output
            buffers = [x for x in module.buffers() if x.is_floating_point()]
            for buffer in buffers:
                buffer.fill_(NAN)
            return {name: feature * NAN for name, feature in output.items()}

        bottom_up.register_forward_hook(spoil)
        return model

    monkeypatch.setattr(IONTrainer, "build_model", staticmethod(build))


SKIPPING = ("SOLVER.SKIP_NON_FINITE", 2, "SOLVER.CHECKPOINT_PERIOD", 1, "DATASETS.TEST", "()")


@pytest.mark.parametrize(("norm", "decay"), [("GN", 0.0), ("BN", 0.0), ("GN", 0.9)])
def test_a_bad_batch_is_skipped_counted_and_leaves_no_trace(
    scenes, tmp_path, monkeypatch, caplog, norm, decay
):
    nan_in_step(monkeypatch, 2)
    opts = ("MODEL.VGG.NORM", norm, "SOLVER.EMA_DECAY", decay)
    cfg = make_config(scenes, tmp_path, *SKIPPING, *opts)
    watched = Record()
    trainer = run(cfg, watched)
    assert watched.moved[2] == set() and all(watched.moved[i] for i in (0, 1, 3, 4, 5))
    check_state(trainer.model.state_dict())
    one, other = (torch.load(tmp_path / f"model_000000{i}.pth") for i in (1, 2))
    assert_same(one["model"], other["model"])
    (told,) = (x.getMessage() for x in caplog.records if "Skipped" in x.msg)
    assert "iteration 2 (1 of at most 2, " in told and ".jpg" in told and "nan" in told.lower()
    assert trainer.storage.latest()["skipped_steps"][0] == 1


def test_one_too_many_stops_also_after_a_resume(scenes, tmp_path, monkeypatch):
    nan_in_step(monkeypatch, 1, 2, 4)
    with pytest.raises(IONError, match="in iteration 4 .*skip more than the 2 before it"):
        run(make_config(scenes, tmp_path, *SKIPPING))
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000003.pth"
    with pytest.raises(IONError, match="in iteration 4 "):
        run(make_config(scenes, tmp_path, *SKIPPING), resume=True)
    run(make_config(scenes, tmp_path, *SKIPPING, "SOLVER.SKIP_NON_FINITE", 3), resume=True)


def test_an_error_that_one_process_alone_has_met_is_not_skipped(monkeypatch):
    trainer = PassTrainer(nn.Linear(1, 1), [], torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1))
    trainer.most_skipped = 1
    assert trainer._may_skip(FloatingPointError()) and trainer._may_skip(NotFiniteError())
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 2)
    assert trainer._may_skip(NotFiniteError()) and not trainer._may_skip(FloatingPointError())


def test_the_pictures_of_this_process_are_not_blamed_for_another():
    images = [{"file_name": "a/b.jpg"}]
    assert describe(FloatingPointError("a is nan."), images) == "a is nan; pictures: b.jpg"
    assert "b.jpg" not in describe(FloatingPointError(_ELSEWHERE), images)


def test_weights_beyond_all_numbers_are_not_saved(tmp_path):
    model = nn.Linear(2, 2)
    checkpointer = IONCheckpointer(model, str(tmp_path))
    checkpointer.save("good")
    model.weight.data[0, 0] = INF
    with pytest.raises(FloatingPointError):
        checkpointer.save("bad")
    assert (tmp_path / "last_checkpoint").read_text() == "good.pth"


def test_what_is_found_outside_of_a_step_is_one_sentence_too(scenes, tmp_path, monkeypatch):
    def evaluate(self):
        raise FloatingPointError("Predicted boxes or scores contain\nInf/NaN.")

    monkeypatch.setattr(IONTrainer, "evaluate", evaluate)
    with pytest.raises(IONError, match="iteration 1 .*contain Inf/NaN.: lower SOLVER.BASE_LR,"):
        run(make_config(scenes, tmp_path, "SOLVER.MAX_ITER", 1))


def test_losses_of_a_test_set_name_the_picture(scenes, tmp_path):
    cfg = make_config(scenes, tmp_path, "TEST.LOSS", True)
    trainer = IONTrainer(cfg)
    for parameter in trainer.model.proposal_generator.parameters():
        parameter.data[:] = NAN
    with pytest.raises(IONError, match="TEST.LOSS.*NaN or infinity for .*jpg"):
        IONTrainer.test(cfg, trainer.model)


class Diverged(nn.Linear):
    """Gives a loss that is infinite."""

    def forward(self, images):
        return {"loss_cls": self.weight.sum() * INF}


@pytest.mark.filterwarnings("ignore")  # that there is no GPU
def test_mixed_precision_tells_losses_too():
    model, loader = Diverged(1, 1), [[{"file_name": "a/b.jpg"}]]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    scaler = SimpleNamespace(scale=lambda loss: loss)
    trainer = AMPPassTrainer(model, loader, optimizer, grad_scaler=scaler)
    trainer.iter = 7
    words = "iteration 7 .loss_cls is -?inf; pictures: b.jpg.*rate was 0.5"
    with pytest.raises(IONError, match=words):
        trainer.run_step()
