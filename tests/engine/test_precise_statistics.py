"""TEST.PRECISE_BN: what is measured, what keeps its own statistics, and where it is refused."""

import pytest
import torch
from detectron2.engine import hooks
from fvcore.nn.precise_bn import update_bn_stats
from torch import nn
from trainer_helpers import Record, assert_same, make_config, run

from ion_d2.engine.hooks import TrainingInterrupted
from ion_d2.engine.trainer import IONTrainer
from ion_d2.errors import IONError
from ion_d2.modeling import BatchRenorm2d

PRECISE = ("MODEL.VGG.NORM", "BN", "TEST.PRECISE_BN.ENABLED", True, "TEST.PRECISE_BN.NUM_ITER", 2)


@pytest.mark.slow
def test_precise_statistics_are_those_of_an_uninterrupted_training(scenes, tmp_path, no_test):
    opts = (*PRECISE, "TEST.EVAL_PERIOD", 2)
    expected = run(make_config(scenes, tmp_path / "whole", *opts))
    cfg = make_config(scenes, tmp_path / "cut", *opts)
    with pytest.raises(TrainingInterrupted):
        run(cfg, Record(interrupt_at=2))
    resumed = run(cfg, resume=True)
    assert_same(resumed.model, expected.model)


@pytest.mark.slow
def test_batch_renormalization_keeps_its_statistics(scenes, tmp_path, no_test, monkeypatch):
    states = []

    def noting(model, *args):
        for measure in (lambda *_: None, update_bn_stats):
            measure(model, *args)
            states.append({name: value.clone() for name, value in model.named_buffers()})

    monkeypatch.setattr(hooks, "update_bn_stats", noting)
    opts = (*PRECISE, "MODEL.CONTEXT.NORM", "BRN", "SOLVER.MAX_ITER", 2)
    model = run(make_config(scenes, tmp_path, *opts)).model
    before, after = states
    kept = {name for name in before if torch.equal(before[name], after[name])}
    context = {name for name in before if ".context." in name}
    assert context and context <= kept
    assert not any("running" in name for name in kept - context)
    assert all(it.training for it in model.modules() if isinstance(it, nn.BatchNorm2d))


@pytest.mark.parametrize("norm", ["BRN", "GN", "FrozenBN"])
def test_a_model_without_anything_to_measure_is_told(scenes, tmp_path, norm):
    cfg = make_config(scenes, tmp_path, *PRECISE, "MODEL.VGG.NORM", norm)
    with pytest.raises(IONError, match="TEST.PRECISE_BN.ENABLED is True, but .* set it to False"):
        IONTrainer(cfg)


def test_a_measurement_by_hand_fails_before_it_destroys():
    """Fvcore's, in any program: it has each layer forget all batches but the last."""
    norm = BatchRenorm2d(3).train()
    norm(torch.randn(2, 3, 4, 4))
    before = {key: value.clone() for key, value in norm.state_dict().items()}
    with pytest.raises(IONError, match="BRN keeps its own statistics"):
        update_bn_stats(nn.Sequential(norm), [torch.randn(2, 3, 4, 4)] * 3, 3)
    assert_same(norm, before)
