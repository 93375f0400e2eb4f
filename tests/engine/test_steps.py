"""Several passes give the losses, the gradients and the step of one batch."""

import inspect
import threading

import pytest
import torch
from detectron2.engine import HookBase, SimpleTrainer
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from model_helpers import EXACT, make_input, small_config, small_model, suppress_in_float64

from ion_d2.engine.steps import AMPPassTrainer, PassTrainer, accumulate_gradients
from ion_d2.engine.trainer import IONTrainer
from ion_d2.modeling.roi_heads.box_predictor import ImageMeanOutputLayers

pytestmark = pytest.mark.slow

NAMES = {"loss_cls", "loss_box_reg", "loss_rpn_cls", "loss_rpn_loc", "loss_sem_seg"}


@pytest.fixture(autouse=True)
def _suppression_in_float64(monkeypatch):
    suppress_in_float64(monkeypatch)


def make_model(*opts):
    return small_model(*EXACT, *opts).double()


def images():
    """Four of one size with 2, 1, 2 and no objects; one has no label map, one few labels."""
    found = [
        make_input(64, 96, labels=seed != 1, boxes=boxes, seed=seed)
        for seed, boxes in enumerate((2, 1, 2, 0))
    ]
    found[2]["sem_seg"][10:] = 255
    return found


def gradients(model, inputs, images_per_pass):
    model.zero_grad()
    with EventStorage():
        losses = accumulate_gradients(model, inputs, images_per_pass)
    return losses, {n: p.grad.clone() for n, p in model.named_parameters()}


def largest_difference(a, b):
    scale = max(x.abs().max() for x in a.values())
    return max((a[n] - b[n]).abs().max() for n in a) / scale


def rois_sampled(model, inputs):
    with EventStorage() as storage:
        model(inputs)
        latest = storage.latest()
    return latest["roi_head/num_fg_samples"][0] + latest["roi_head/num_bg_samples"][0]


@pytest.mark.parametrize("images_per_pass", [1, 2, 3])
def test_passes_equal_one_batch(images_per_pass):
    """Every gradient, in float64, and every loss (two are float32), with unequal images."""
    model, inputs = make_model(), images()
    assert len({rois_sampled(model, [x]) for x in inputs}) > 1
    losses, whole = gradients(model, inputs, 0)
    again, parts = gradients(model, inputs, images_per_pass)
    assert set(losses) == set(again) == NAMES
    for name, value in losses.items():
        assert value > 0 and again[name].item() == pytest.approx(value.item(), rel=1e-6)
        assert not again[name].requires_grad
    assert largest_difference(whole, parts) < 1e-9


def test_the_gradient_is_the_mean_over_single_images():
    model, inputs = make_model(), images()
    _, whole = gradients(model, inputs, 0)
    singles = [gradients(model, [x], 0)[1] for x in inputs]
    mean = {n: sum(g[n] for g in singles) / 4 for n in whole}
    assert largest_difference(whole, mean) < 1e-9


class Loader:
    """The same batch for ever."""

    def __iter__(self):
        while True:
            yield images()


def step(kind, model, images_per_pass, *opts, steps=1, hooks=(), **more):
    """Take optimizer steps; return the trainer and the last losses."""
    cfg = small_config(*opts)
    trainer = kind(model, Loader(), IONTrainer.build_optimizer(cfg, model), **more)
    trainer.images_per_pass = images_per_pass
    trainer.register_hooks(hooks)
    trainer.train(0, steps)
    return trainer, trainer.storage.latest()


@pytest.mark.parametrize("clip", [1e-3, 20.0])
def test_steps_are_equal_with_momentum_decay_and_clipping(clip):
    """Two optimizer steps from single images end at the weights of two with whole batches."""
    opts = (*EXACT, "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", clip)
    (whole, expected), (parts, losses) = (
        step(PassTrainer, make_model(), images_per_pass, *opts, steps=2)
        for images_per_pass in (0, 1)
    )
    for name in (*NAMES, "total_loss"):
        assert losses[name][0] == pytest.approx(expected[name][0], rel=1e-6)
    one, other = whole.model.state_dict(), parts.model.state_dict()
    assert one.keys() == other.keys() and largest_difference(one, other) < 1e-12


def test_a_batch_in_one_pass_is_detectron2s_own_step():
    ends = []
    for kind in (PassTrainer, SimpleTrainer):
        opts = ("MODEL.SEG_REGULARIZER_ON", True)
        ends.append(step(kind, small_model(*opts), 0, *opts)[0].model.state_dict())
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


def test_losses_that_only_some_passes_have_are_kept():
    model = torch.nn.Linear(1, 1)

    def forward(part):
        loss = model(torch.ones(1, 1)).sum() * 0 + len(part)
        return {"always": loss, **({"seldom": loss} if "rare" in part[0] else {})}

    losses = accumulate_gradients(model, [{}, {}, {}, {"rare": 1}], 1, forward)
    assert losses == {"always": 1.0, "seldom": 0.25}


class Scaler:
    """As much of torch's gradient scaler as the step needs, without a GPU."""

    factor, updates = 1024.0, 0

    def is_enabled(self):
        return True

    def scale(self, loss):
        return loss * self.factor

    def step(self, optimizer):
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad /= self.factor
        optimizer.step()

    def update(self):
        self.updates += 1

    def get_scale(self):
        return self.factor


@pytest.mark.filterwarnings("ignore")  # that there is no GPU
def test_scaled_gradients_of_all_passes_are_unscaled_once():
    opts = (*EXACT, "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 1e-3)
    plain, _ = step(PassTrainer, make_model(), 1, *opts)
    scaled, _ = step(AMPPassTrainer, make_model(), 1, *opts, grad_scaler=Scaler())
    assert scaled.grad_scaler.updates == 1
    assert largest_difference(plain.model.state_dict(), scaled.model.state_dict()) < 1e-12


@pytest.mark.skipif(not torch.cuda.is_available(), reason="mixed precision needs a GPU")
def test_mixed_precision_accumulates_scaled_gradients():
    model = small_model("MODEL.DEVICE", "cuda")
    before = model.roi_heads.box_head.fc7.weight.detach().clone()
    trainer, _ = step(AMPPassTrainer, model, 1, "MODEL.DEVICE", "cuda")
    assert "grad_scaler" in trainer.state_dict()
    assert not torch.equal(before, model.roi_heads.box_head.fc7.weight)


class Gradients(HookBase):
    """Largest gradient that each step showed."""

    def __init__(self):
        self.seen = []

    def after_backward(self):
        model = self.trainer.model
        self.seen.append(max(p.grad.abs().max().item() for p in model.parameters()))


def train(kind, steps=2, **more):
    """Losses by name and what hooks saw after a few steps of a float32 model on the CPU."""
    model, hook, dtypes = small_model(*EXACT), Gradients(), set()
    model.backbone.bottom_up.conv1_1.register_forward_hook(lambda *x: dtypes.add(x[2].dtype))
    _, latest = step(kind, model, 2, *EXACT, steps=steps, hooks=[hook], **more)
    return {name: latest[name][0] for name in NAMES}, hook.seen, dtypes


@pytest.mark.filterwarnings("ignore")  # that there is no GPU
def test_bfloat16_trains_on_a_cpu_as_float32_does():
    losses, gradients_seen, dtypes = train(AMPPassTrainer, 1, precision=torch.bfloat16)
    expected, expected_gradients, plain_dtypes = train(PassTrainer, 1)
    assert (dtypes, plain_dtypes) == ({torch.bfloat16}, {torch.float32})
    assert gradients_seen[0] == pytest.approx(expected_gradients[0], rel=0.1)  # and not scaled
    for name, value in expected.items():
        assert losses[name] == pytest.approx(value, rel=0.05), name


@pytest.mark.filterwarnings("ignore")  # that there is no GPU
@pytest.mark.parametrize("kind", [PassTrainer, AMPPassTrainer])
def test_metrics_are_written_beside_the_steps_where_detectron2_can(kind):
    if "async_write_metrics" not in inspect.signature(SimpleTrainer).parameters:
        pytest.skip("this Detectron2 writes them in the step")
    more = {"precision": torch.bfloat16} if kind is AMPPassTrainer else {}
    threads = set()

    class Noting(kind):
        def _write_metrics(self, *args, **kwargs):
            threads.add(threading.current_thread())
            super()._write_metrics(*args, **kwargs)

    losses = train(Noting, async_write_metrics=True, **more)[0]
    assert losses.keys() == NAMES and threading.main_thread() not in threads and threads


def with_proposals(x, count):
    proposals = Instances((64, 96))
    corners = torch.arange(count * 2.0).reshape(count, 2)
    proposals.proposal_boxes = Boxes(torch.cat([corners, corners + 30], dim=1).double())
    proposals.objectness_logits = torch.zeros(count)
    return {**x, "proposals": proposals}


@pytest.mark.parametrize("ours", [True, False])
def test_images_keep_their_weight_however_many_proposals_they_have(ours, monkeypatch):
    """Fast R-CNN's way. With Detectron2's own losses the passes differ: the test can fail."""
    if not ours:
        monkeypatch.setattr(ImageMeanOutputLayers, "losses", FastRCNNOutputLayers.losses)
    inputs = [with_proposals(x, count) for x, count in zip(images(), (9, 2))]
    model = make_model("MODEL.PROPOSAL_GENERATOR.NAME", "PrecomputedProposals")
    _, whole = gradients(model, inputs, 0)
    _, parts = gradients(model, inputs, 1)
    assert (largest_difference(whole, parts) < 1e-9) == ours
