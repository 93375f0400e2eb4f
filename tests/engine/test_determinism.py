"""SOLVER.DETERMINISTIC: equal seeds give weights that are equal bit for bit."""

import pytest
import torch
from trainer_helpers import make_config, run

from ion_d2.engine.trainer import IONTrainer
from ion_d2.errors import IONError


@pytest.fixture(autouse=True)
def _as_before(monkeypatch):
    """Leave the process as it was."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    yield
    torch.use_deterministic_algorithms(False)


def config(scenes, output, *opts):
    return make_config(
        scenes, output, "SOLVER.DETERMINISTIC", True, "SEED", 7, "SOLVER.MAX_ITER", 2,
        "DATASETS.TEST", "()", *opts,
    )  # fmt: skip


def test_equal_seeds_give_equal_weights_under_deterministic_operators(scenes, tmp_path):
    # Everything that draws or scatters: segmentation, dropout, small images in one batch.
    opts = ("MODEL.SEG_REGULARIZER_ON", True, "MODEL.CONTEXT.DROPOUT", 0.25,
            "MODEL.ROI_BOX_HEAD.FC_DROPOUT", 0.5, "MODEL.CONTEXT.TRANSITION", "full")  # fmt: skip
    states = []
    for k, seed in enumerate((7, 7, 8)):
        cfg = config(scenes, tmp_path / str(k), *opts, "SEED", seed)
        states.append(run(cfg).model.state_dict())
        assert torch.are_deterministic_algorithms_enabled()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert not all(torch.equal(value, states[2][name]) for name, value in states[0].items())


@pytest.mark.parametrize(
    ("opts", "words"),
    [(("SEED", -1), "SEED is negative"), (("CUDNN_BENCHMARK", True), "CUDNN_BENCHMARK")],
)
def test_settings_that_leave_it_to_chance(scenes, tmp_path, opts, words):
    with pytest.raises(IONError, match=words):
        IONTrainer(config(scenes, tmp_path, *opts))
    assert not torch.are_deterministic_algorithms_enabled()
