"""A training that diverges stops in that step, with one sentence, and keeps what was good."""

from types import SimpleNamespace

import pytest
import torch
from detectron2.engine import HookBase
from detectron2.modeling.proposal_generator import RPN
from torch import nn
from trainer_helpers import make_config, run

from ion_d2.engine.checkpoint import IONCheckpointer
from ion_d2.engine.finite import check_gradients, check_losses, check_scale, check_weights
from ion_d2.engine.steps import AMPPassTrainer
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
    assert "\n" not in text
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000002.pth"
    check_state(torch.load(tmp_path / "model_0000002.pth", weights_only=False)["model"])


def check_state(state):
    assert all(torch.isfinite(value).all() for value in state.values())


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
