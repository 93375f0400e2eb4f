import zipfile

import numpy as np
import pytest
import torch
from checkpoint_helpers import make, values, zeroed
from fvcore.common.checkpoint import PeriodicCheckpointer
from torch import nn
from trainer_helpers import assert_same

from ion_d2.engine.checkpoint import IONCheckpointer


class Counter:
    """A training state that holds what Detectron2's hooks may hold: NumPy values."""

    def __init__(self):
        self.state = {}

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.state = state


def test_resume_restores_the_model_and_all_states(tmp_path):
    counter = Counter()
    saved = make(tmp_path, counter=counter)
    saved.save("model_0000001", iteration=1)
    counter.state = {
        "best": np.float64(0.5), "count": np.int64(3), "done": np.bool_(True),
        "table": np.arange(6, dtype=np.float32).reshape(2, 3),
        "generator": np.random.RandomState(0).get_state(),
    }  # fmt: skip
    nn.init.normal_(saved.model.weight)
    saved.save("model_0000002", iteration=2)

    other = Counter()
    resumed = zeroed(make(tmp_path, counter=other))
    assert resumed.resume_or_load("", resume=True)["iteration"] == 2
    assert_same(resumed.model, saved.model)
    np.testing.assert_equal(other.state, counter.state)

    other.state = {}
    resumed.resume_or_load(str(tmp_path / "model_0000002.pth"), resume=False)
    assert other.state == {}, "weights alone were asked for"


def test_states_written_under_the_other_numpy_are_read(tmp_path):
    counter = Counter()
    counter.state = {"best": np.float64(0.5), "table": np.arange(3)}
    make(tmp_path, counter=counter).save("model")
    old, new = tmp_path / "model.pth", tmp_path / "other.pth"
    with zipfile.ZipFile(old) as source, zipfile.ZipFile(new, "w") as target:
        for item in source.namelist():
            data = source.read(item)
            if item.endswith("data.pkl"):
                ours, theirs = b"numpy._core.multiarray", b"numpy.core.multiarray"
                if ours not in data:
                    ours, theirs = theirs, ours
                assert ours in data
                data = data.replace(ours, theirs)
            target.writestr(item, data)
    if theirs == b"numpy._core.multiarray" and not hasattr(np, "_core"):
        pytest.skip("this NumPy is older than the other name")
    other = Counter()
    make(counter=other).load(str(new))
    np.testing.assert_equal(other.state, counter.state)


def test_numpy_is_read_where_pytorch_takes_no_names_of_functions(tmp_path, monkeypatch):
    """As 2.5, whose ``safe_globals`` refuses pairs of a function and its name."""
    admitted, real = [], torch.serialization.safe_globals
    monkeypatch.setattr(
        torch.serialization, "safe_globals", lambda given: admitted.extend(given) or real(given)
    )
    monkeypatch.delattr(torch.serialization, "get_unsafe_globals_in_checkpoint")
    counter, other = Counter(), Counter()
    counter.state = {"best": np.float64(0.5), "table": np.arange(3)}
    make(tmp_path, counter=counter).save("model")
    make(counter=other).load(str(tmp_path / "model.pth"))
    np.testing.assert_equal(other.state, counter.state)
    assert admitted and not any(isinstance(each, tuple) for each in admitted)


def test_nothing_to_load_or_to_resume(tmp_path):
    checkpointer = make(tmp_path)
    before = values(checkpointer)
    assert checkpointer.load("") == {}
    assert checkpointer.resume_or_load("", resume=True) == {}
    torch.testing.assert_close(values(checkpointer), before)


def test_only_the_main_process_writes(tmp_path):
    make(tmp_path, save_to_disk=False).save("model")
    IONCheckpointer(nn.Linear(1, 1)).save("model")
    assert list(tmp_path.iterdir()) == []


def test_old_checkpoints_are_removed_when_asked(tmp_path):
    periodic = PeriodicCheckpointer(make(tmp_path), period=1, max_iter=4, max_to_keep=2)
    for iteration in range(4):
        periodic.step(iteration)
    kept = {"last_checkpoint", "model_0000002.pth", "model_0000003.pth", "model_final.pth"}
    assert {path.name for path in tmp_path.iterdir()} == kept
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"


@pytest.mark.parametrize("ema", [None, 0.99, {"weight": torch.ones(1, 1)}])
def test_what_other_programs_call_ema_is_not_ours(tmp_path, ema):
    weights = nn.Linear(1, 1).state_dict()
    torch.save({"model": weights, "ema": ema}, tmp_path / "a.pth")
    model = nn.Linear(1, 1)
    IONCheckpointer(model).load(str(tmp_path / "a.pth"))
    assert torch.equal(model.weight, weights["weight"])
