"""Two processes measure the same figures and stop together, as one would."""

from types import SimpleNamespace

import pytest
import torch
from process_helpers import in_two_processes

from ion_d2.engine.hooks import StopOnSignal, TrainingInterrupted
from ion_d2.layers.l2_norm import mean_l2_norm
from ion_d2.modeling.backbone.batch_renorm import BatchRenorm2d
from ion_d2.modeling.roi_heads.feature_scale import FeatureScale

BATCHES = 3
# ROIs of each process in each batch; a process may have none, and all together.
COUNTS = ((0, 0), (5, 2), (0, 7), (4, 4), (9, 9))


def pooled(step, rank):
    generator = torch.Generator().manual_seed(10 * step + rank)
    return torch.randn(COUNTS[step][rank], 6, 3, 3, generator=generator) * (1 + 4 * rank)


class Trainer:
    """As much of a trainer as the hook looks at."""

    iter, max_iter = 0, 9


def measure(norm, rank=None):
    """Factors after each batch: of this process' ROIs, or of all in one batch."""
    scale, factors = FeatureScale(6, init=0.0, batches=BATCHES).train(), []
    for step in range(len(COUNTS)):
        parts = [pooled(step, r) for r in ((0, 1) if rank is None else (rank,))]
        scale.observe(torch.cat(parts), norm)
        factors.append(scale.factor.detach().clone())
    return torch.stack(factors), int(scale.batches_left)


def renormalized(batches):
    """Results and gradients of the context's normalization, and its running statistics."""
    norm, passes = BatchRenorm2d(2).double().train(), []
    for x in batches:
        y = norm(x.requires_grad_())
        tensors = (x, norm.weight, norm.bias)
        passes.append((y.detach(), *torch.autograd.grad(y.pow(3).sum(), tensors)))
    return passes, torch.stack([norm.running_mean, norm.running_var])


def context_maps(*ranks):
    """Batches of some processes, which differ in level and number of images."""
    parts = []
    for rank in ranks:
        noise = {"generator": torch.Generator().manual_seed(50 + rank), "dtype": torch.float64}
        parts.append(3 * rank + torch.randn(4, 2 + rank, 2, 5, 5, **noise))
    return torch.cat(parts, dim=1)


def stopped_at(rank):
    """The step after which a process stops, where process 1 alone gets a signal in step 2."""
    hook, trainer = StopOnSignal(SimpleNamespace(save=lambda *_, **__: None)), Trainer()
    hook.trainer = trainer
    for step in range(trainer.max_iter):
        trainer.iter = step
        if rank == 1 and step == 2:
            hook._handle(15, None)
        try:
            hook.after_step()
        except TrainingInterrupted as stop:
            return step, stop.exit_status
    return None


def work(rank):
    result = {norm: measure(norm, rank) for norm in ("roi", "position")}
    result["renorm"] = renormalized(context_maps(rank))
    result["stop"] = stopped_at(rank)
    return result


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What each of two processes found."""
    return in_two_processes(work, tmp_path_factory.mktemp("processes"))


@pytest.mark.parametrize("norm", ["roi", "position"])
def test_scale_is_that_of_one_process_with_all_rois(results, norm):
    (first, left), (second, _) = (result[norm] for result in results)
    assert torch.equal(first, second) and left == 0
    alone, _ = measure(norm)
    torch.testing.assert_close(first, alone, rtol=1e-6, atol=0)
    # Batch 0 has no ROI and does not count; the three after it do, each ROI with equal weight.
    rois = torch.cat([pooled(step, rank) for step in (1, 2, 3) for rank in (0, 1)])
    assert first[-1].tolist() == pytest.approx([mean_l2_norm(rois, norm).item()] * 6, rel=1e-5)
    assert torch.equal(first[3], first[4])


def test_running_statistics_are_of_the_cells_of_all_processes(results):
    cells = context_maps(0, 1).transpose(1, 2).flatten(2)  # [B, C, M]
    expected = torch.stack([cells.mean(2).mean(0), cells.var(2, unbiased=False).mean(0)])
    first, second = (result["renorm"][1] for result in results)
    assert torch.equal(first, second)
    torch.testing.assert_close(first, expected)


def test_batch_renormalization_is_that_of_one_process_with_all_images(results):
    together, _ = renormalized(context_maps(0, 1))
    found = zip(*(result["renorm"][0] for result in results))
    for (ours, theirs), (y, for_x, *for_parameters) in zip(found, together):
        torch.testing.assert_close(torch.cat([ours[0], theirs[0]]), y)
        torch.testing.assert_close(torch.cat([ours[1], theirs[1]]), for_x)
        for first, second, both in zip(ours[2:], theirs[2:], for_parameters):
            torch.testing.assert_close(first + second, both)


def test_a_signal_to_one_process_stops_both_after_the_same_step(results):
    assert [result["stop"] for result in results] == [(2, 143), (2, 143)]
