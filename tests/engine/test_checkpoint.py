from __future__ import annotations

import contextlib
import functools
import http.server
import os
import pickle
import resource
import threading
import zipfile

import numpy as np
import pytest
import torch
from fvcore.common.checkpoint import PeriodicCheckpointer
from torch import nn

from ion_d2.engine.checkpoint import IONCheckpointer
from ion_d2.engine.checkpoint_files import write_atomically
from ion_d2.errors import IONError


class Counter:
    """A training state that holds what Detectron2's hooks may hold: NumPy values."""

    def __init__(self):
        self.state = {}

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.state = state


def make(folder="", size=4, **states):
    torch.manual_seed(size)
    return IONCheckpointer(nn.Linear(size, size), str(folder), **states)


def values(checkpointer):
    return {key: value.clone() for key, value in checkpointer.model.state_dict().items()}


def zeroed(checkpointer):
    for parameter in checkpointer.model.parameters():
        nn.init.zeros_(parameter)
    return checkpointer


def is_zero(checkpointer):
    return not any(value.any() for value in checkpointer.model.state_dict().values())


@contextlib.contextmanager
def file_size_limit(size):
    """The kernel refuses to let any file grow beyond ``size`` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_resume_restores_the_model_and_all_states(tmp_path):
    counter = Counter()
    saved = make(tmp_path, counter=counter)
    saved.save("model_0000001", iteration=1)
    counter.state = {
        "best": np.float64(0.5),
        "count": np.int64(3),
        "table": np.arange(6, dtype=np.float32).reshape(2, 3),
        "generator": np.random.RandomState(0).get_state(),
        "done": np.bool_(True),
    }
    nn.init.normal_(saved.model.weight)
    saved.save("model_0000002", iteration=2)

    other = Counter()
    resumed = zeroed(make(tmp_path, counter=other))
    assert resumed.resume_or_load("", resume=True)["iteration"] == 2
    torch.testing.assert_close(resumed.model.state_dict(), saved.model.state_dict(), rtol=0, atol=0)
    np.testing.assert_equal(other.state, counter.state)

    other.state = {}
    weights = str(tmp_path / "model_0000002.pth")
    resumed.resume_or_load(weights, resume=False)
    assert other.state == {}, "weights alone were asked for"


def test_optimizer_and_scheduler_resume(tmp_path):
    def build():
        model = nn.Linear(4, 4)
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 5])
        return IONCheckpointer(model, str(tmp_path), optimizer=optimizer, scheduler=scheduler)

    first = build()
    first.model(torch.ones(1, 4)).sum().backward()
    first.checkpointables["optimizer"].step()
    first.checkpointables["scheduler"].step()
    first.save("model_final")
    second = build()
    second.resume_or_load("", resume=True)
    for key in ("optimizer", "scheduler"):
        ours, theirs = (c.checkpointables[key].state_dict() for c in (second, first))
        torch.testing.assert_close(ours, theirs)


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
    assert {path.name for path in tmp_path.iterdir()} == {
        "last_checkpoint",
        "model_0000002.pth",
        "model_0000003.pth",
        "model_final.pth",
    }
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"


# --- Files that cannot be loaded


@pytest.mark.parametrize("name", ["gone.pth", "no/such/folder/gone.pkl", "."])
def test_a_missing_file_is_named(tmp_path, name):
    path = str(tmp_path / name)
    with pytest.raises(IONError, match=f"MODEL.WEIGHTS {path} is not a file"):
        make().load(path)


@pytest.mark.parametrize("tag", ["gone.pth", ""])
def test_resume_from_a_checkpoint_that_is_gone(tmp_path, tag):
    (tmp_path / "last_checkpoint").write_text(tag)
    with pytest.raises(
        IONError, match=f"last_checkpoint names '{tag}', which is not in that folder"
    ):
        make(tmp_path).resume_or_load("", resume=True)
    make(tmp_path).resume_or_load("", resume=False)


def whole_file(tmp_path):
    make(tmp_path, size=64).save("whole")
    return (tmp_path / "whole.pth").read_bytes()


@pytest.mark.parametrize("suffix", [".pth", ".pkl", ".pyth"])
@pytest.mark.parametrize("kind", ["empty", "text", "page", "cut", "half", "noise"])
def test_a_damaged_file_is_named(tmp_path, kind, suffix):
    whole = whole_file(tmp_path)
    data = {
        "empty": b"",
        "text": b"hello world",
        "page": b"<!DOCTYPE html><html>404</html>",
        "cut": whole[:-1000],
        "half": whole[: len(whole) // 2],
        "noise": np.random.RandomState(0).bytes(1000),
    }[kind]
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(data)
    checkpointer = make(size=64)
    before = values(checkpointer)
    with pytest.raises(IONError, match=f"{path} is not a readable checkpoint"):
        checkpointer.load(str(path))
    torch.testing.assert_close(values(checkpointer), before)


def test_a_checkpointer_goes_on_after_a_failure(tmp_path):
    whole_file(tmp_path)
    (tmp_path / "bad.pth").write_bytes(b"")
    checkpointer = zeroed(make(size=64))
    for bad in ("bad.pth", "gone.pth"):
        with pytest.raises(IONError):
            checkpointer.load(str(tmp_path / bad))
    checkpointer.load(str(tmp_path / "whole.pth"))
    assert not is_zero(checkpointer)


class Trap:
    """Touches a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.skipif(
    not hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint"),
    reason="this PyTorch loads arbitrary objects by default",
)
def test_code_in_a_file_is_not_run(tmp_path):
    torch.save({"model": {}, "extra": Trap(tmp_path / "trapped")}, tmp_path / "trap.pth")
    with pytest.raises(IONError, match="trap.pth holds Python objects besides tensors"):
        make().load(str(tmp_path / "trap.pth"))
    assert not (tmp_path / "trapped").exists()


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
    message = (
        r"Nothing in .*other.pth fits the model: it holds layer0.kernel, layer1.kernel, "
        r"layer2.kernel, \.\.\. \(5 in all\), the model has weight, bias;"
    )
    with pytest.raises(IONError, match=message):
        make().load(str(tmp_path / "other.pth"))
    torch.save({}, tmp_path / "none.pth")
    with pytest.raises(IONError, match="it holds no tensors"):
        make().load(str(tmp_path / "none.pth"))


def test_equal_names_of_other_shapes_do_not_fit(tmp_path):
    make(tmp_path, size=5).save("five")
    with pytest.raises(IONError, match=r"weight is \(5, 5\) there and \(4, 4\) here"):
        make().load(str(tmp_path / "five.pth"))


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


# --- URLs


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A web server on this machine with one checkpoint, and an empty download cache."""
    (tmp_path / "site").mkdir()
    make(tmp_path / "site").save("weights")
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    handler = functools.partial(QuietHandler, directory=str(tmp_path / "site"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def test_a_url_is_downloaded_once(site, tmp_path):
    checkpointer = zeroed(make())
    checkpointer.load(f"{site}/weights.pth")
    assert not is_zero(checkpointer)
    (tmp_path / "site" / "weights.pth").unlink()
    checkpointer = zeroed(make())
    checkpointer.load(f"{site}/weights.pth")
    assert not is_zero(checkpointer)


def test_a_failed_download_is_named(site, tmp_path):
    with pytest.raises(
        IONError, match=f"{site}/gone.pth could not be downloaded .*404.* local path"
    ):
        make().load(f"{site}/gone.pth")
    (tmp_path / "site" / "empty.pth").touch()
    with pytest.raises(IONError, match="empty.pth could not be downloaded"):
        make().load(f"{site}/empty.pth")


def test_no_connection_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))
    # Nothing listens on the discard port.
    with pytest.raises(IONError, match="http://127.0.0.1:9/vgg.pth could not be downloaded"):
        make().load("http://127.0.0.1:9/vgg.pth")


# --- Saves that fail


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
    with pytest.raises(IONError, match="gone/model.pth could not be written .No such file"):
        make(tmp_path / "gone").save("model")


class Interrupted:
    """A file whose writer is stopped by Ctrl-C after some bytes."""

    def __init__(self, file, size):
        self.file, self.left = file, size

    def write(self, data):
        self.left -= len(data)
        if self.left < 0:
            raise KeyboardInterrupt
        return self.file.write(data)

    def flush(self):
        self.file.flush()


@pytest.mark.parametrize("size", [0, 100, 20000])
def test_ctrl_c_during_a_save_stays_one_and_does_no_harm(tmp_path, size):
    path = tmp_path / "model.pth"
    path.write_bytes(b"old")
    data = {"model": torch.zeros(10000)}
    with pytest.raises(KeyboardInterrupt):
        write_atomically(str(path), lambda file: torch.save(data, Interrupted(file, size)))
    assert contents(tmp_path) == {"model.pth": b"old"}


def test_an_error_of_the_program_is_not_called_a_disk_error(tmp_path):
    with pytest.raises(RuntimeError, match="broken"):
        write_atomically(str(tmp_path / "file"), lambda file: fail())
    assert contents(tmp_path) == {}


def fail():
    raise RuntimeError("broken")
