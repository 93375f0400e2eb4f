"""Saves that fail leave what was there intact."""

import os

import pytest
import torch
from checkpoint_helpers import contents, make, values, zeroed
from process_helpers import file_size_limit

from ion_d2.engine.checkpoint_files import write_atomically
from ion_d2.errors import IONError


def test_no_space_leaves_earlier_checkpoints_intact(tmp_path):
    checkpointer = make(tmp_path, size=1000)  # 4 MB
    checkpointer.save("model_0000001", iteration=1)
    before, weights = contents(tmp_path), values(checkpointer)
    zeroed(checkpointer)
    for name in ("model_0000002", "model_0000001"):
        with file_size_limit(2**20), pytest.raises(IONError, match="File too large") as raised:
            checkpointer.save(name, iteration=2)
        assert f"{tmp_path} is intact" in str(raised.value)
        assert contents(tmp_path) == before
    checkpointer.resume_or_load("", resume=True)
    torch.testing.assert_close(values(checkpointer), weights)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's always-full device")
@pytest.mark.parametrize("name", ["model_0000002.pth", "last_checkpoint"])
def test_a_full_disk_is_told(tmp_path, name):
    checkpointer = make(tmp_path)
    checkpointer.save("model_0000001")
    before = contents(tmp_path)
    (tmp_path / f"{name}.tmp").symlink_to("/dev/full")  # writes to it end in ENOSPC
    with pytest.raises(IONError, match=f"{name} could not be written .No space left on device"):
        checkpointer.save("model_0000002")
    after = contents(tmp_path)
    after.pop("model_0000002.pth", None)
    assert after == before


def test_a_missing_output_folder_is_told(tmp_path):
    with pytest.raises(IONError, match=f"{tmp_path}/gone is gone, which was there before"):
        make(tmp_path / "gone").save("model")


class Interrupted:
    """A file whose writer is stopped after some bytes, by Ctrl-C or otherwise."""

    def __init__(self, file, size, error):
        self.file, self.left, self.error = file, size, error

    def write(self, data):
        self.left -= len(data)
        if self.left < 0:
            raise self.error
        return self.file.write(data)

    def flush(self):
        self.file.flush()


@pytest.mark.parametrize(
    ("kind", "words"),
    [(KeyboardInterrupt, None), (RuntimeError, "DataLoader worker is killed by signal: Killed. ")],
)
@pytest.mark.parametrize("size", [0, 100, 20000])
def test_ctrl_c_or_a_lost_worker_in_a_save_stays_one_and_does_no_harm(tmp_path, size, kind, words):
    (tmp_path / "model.pth").write_bytes(b"old")

    def write(file):
        torch.save({"model": torch.zeros(10000)}, Interrupted(file, size, kind(words)))

    with pytest.raises(kind, match=words):
        write_atomically(str(tmp_path / "model.pth"), write)
    assert contents(tmp_path) == {"model.pth": b"old"}


def test_an_error_of_the_program_is_not_called_a_disk_error(tmp_path):
    def fail(file):
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        write_atomically(str(tmp_path / "file"), fail)
    assert contents(tmp_path) == {}
