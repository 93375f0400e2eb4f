"""Files that cannot be loaded are named, and nothing of them is taken over."""

import pickle
import struct

import numpy as np
import pytest
import torch
from checkpoint_helpers import is_zero, make, zeroed
from torch import nn

from ion_d2.engine.checkpoint import IONCheckpointer
from ion_d2.errors import IONError


@pytest.mark.parametrize("name", ["gone.pth", "no/such/folder/gone.pkl", "."])
def test_a_missing_file_is_named(tmp_path, name):
    told = f"MODEL.WEIGHTS {tmp_path / name} is not a file; give the path or URL of a checkpoint"
    with pytest.raises(IONError, match=f"{told}, or '' to start from random weights"):
        make().load(str(tmp_path / name))
    with pytest.raises(IONError, match=f"{told}\\.$"):  # a trained one
        make().load_complete(str(tmp_path / name))


@pytest.mark.parametrize("tag", ["gone.pth", ""])
def test_resume_from_a_checkpoint_that_is_gone(tmp_path, tag):
    (tmp_path / "last_checkpoint").write_text(tag)
    with pytest.raises(IONError, match=f"last_checkpoint names '{tag}'"):
        make(tmp_path).resume_or_load("", resume=True)
    make(tmp_path).resume_or_load("", resume=False)


# The end of a zip archive that says it goes on from another disk.
_END_ON_DISK_2 = b"PK\6\7" + struct.pack("<LQL", 0, 0, 2) + b"PK\5\6" + bytes(18)
# What takes the place of a whole file.
DAMAGE = {
    "empty": lambda whole: b"",
    "text": lambda whole: b"hello world",
    "page": lambda whole: b"<!DOCTYPE html><html>404</html>",
    "cut": lambda whole: whole[:-1000],
    "half": lambda whole: whole[: len(whole) // 2],
    "disks": lambda whole: _END_ON_DISK_2,
    "noise": lambda whole: np.random.RandomState(0).bytes(1000),
}


@pytest.mark.parametrize("suffix", [".pth", ".pkl", ".pyth"])
@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_file_is_named_and_the_next_one_is_loaded(tmp_path, kind, suffix):
    make(tmp_path, size=64).save("whole")
    whole = tmp_path / "whole.pth"
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(DAMAGE[kind](whole.read_bytes()))
    checkpointer = zeroed(make(size=64))
    with pytest.raises(IONError, match=f"{path} is not a readable checkpoint"):
        checkpointer.load(str(path))
    with pytest.raises(IONError):
        checkpointer.load(str(tmp_path / "gone.pth"))
    assert is_zero(checkpointer)
    checkpointer.load(str(whole))
    assert not is_zero(checkpointer)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([torch.zeros(1)], "holds a list where a dict of tensors"),
        ({"epoch": 3, "state_dict": {}}, "holds a int under 'epoch'"),
        ({"model": {"weight": [1.0]}}, "holds a list under 'weight'"),
        ({"model": {3: torch.zeros(1)}}, "holds a Tensor under 3"),
    ],
)
def test_another_structure_is_told(tmp_path, data, message):
    torch.save(data, tmp_path / "odd.pth")
    with pytest.raises(IONError, match=f"odd.pth {message}"):
        make().load(str(tmp_path / "odd.pth"))


def test_a_file_of_which_nothing_fits_names_keys_of_both(tmp_path):
    torch.save({f"layer{i}.kernel": torch.zeros(1) for i in range(5)}, tmp_path / "other.pth")
    torch.save({}, tmp_path / "none.pth")
    make(tmp_path, size=5).save("five")
    for name, words in {
        "other": r"other.pth .*layer0.kernel, .*layer2.kernel, .*5 in all.* weight, bias",
        "none": "none.pth .*no tensors",
        "five": r"weight is \(5, 5\) there and \(4, 4\) here",
    }.items():
        with pytest.raises(IONError, match=words):
            make().load(str(tmp_path / f"{name}.pth"))


def test_a_model_to_be_used_must_be_there_as_a_whole(tmp_path):
    torch.save({"weight": torch.ones(4, 4)}, tmp_path / "part.pth")
    checkpointer = make()
    with pytest.raises(IONError, match="part.pth is not of this model: 1 of 2 .*bias.* not in it"):
        checkpointer.load_complete(str(tmp_path / "part.pth"))
    torch.save({"weight": torch.ones(4, 4), "bias": torch.ones(3)}, tmp_path / "odd.pth")
    with pytest.raises(IONError, match=r"bias, which is \(3,\) there and \(4,\) here.*NUM_CLASSES"):
        checkpointer.load_complete(str(tmp_path / "odd.pth"))
    checkpointer.load(str(tmp_path / "odd.pth"))  # to train from it, a part is enough
    make(tmp_path).save("whole")
    checkpointer.load_complete(str(tmp_path / "whole.pth"))


def test_statistics_of_a_normalization_are_a_part_of_the_model(tmp_path):
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    state = {k: v for k, v in model.state_dict().items() if "running" not in k}
    torch.save(state, tmp_path / "bare.pth")
    with pytest.raises(IONError, match="2 of 6 .*1.running_mean, which is not in it"):
        IONCheckpointer(model).load_complete(str(tmp_path / "bare.pth"))


def test_zoo_files_match_by_heuristics_or_are_refused(tmp_path):
    weights = {"weight": np.ones((4, 4), np.float32), "bias": np.ones(4, np.float32)}
    for name, model in (("good", weights), ("bad", {"kernel": np.ones(3, np.float32)})):
        data = {"model": model, "__author__": "a test", "matching_heuristics": True}
        (tmp_path / f"{name}.pkl").write_bytes(pickle.dumps(data))
    checkpointer = make()
    checkpointer.load(str(tmp_path / "good.pkl"))
    assert all((value == 1).all() for value in checkpointer.model.state_dict().values())
    with pytest.raises(IONError, match="bad.pkl fits the model: it holds kernel"):
        checkpointer.load(str(tmp_path / "bad.pkl"))
