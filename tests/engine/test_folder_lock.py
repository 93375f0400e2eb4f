"""Two trainings never write to one folder, and no dead one is in the way."""

import contextlib
import errno
import os
import signal
import time

import pytest
from cli_helpers import says, voc_arguments

from ion_d2.engine import folder_lock
from ion_d2.engine.folder_lock import claim, release
from ion_d2.errors import IONError

LOCK = "training.lock"


@contextlib.contextmanager
def another_process(folder, *, with_worker=False):
    """A process that has claimed a folder, or one that has and then started a worker."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        claim(str(folder))
        worker = os.fork() if with_worker else 0
        if worker or not with_worker:
            os.write(writer, str(worker).encode())
        time.sleep(60)
        os._exit(0)
    worker = int(os.read(reader, 20))
    try:
        yield pid
    finally:
        for each in filter(None, (pid, worker)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)


def kill(pid):
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_another_training_is_refused_until_it_has_ended(tmp_path):
    with another_process(tmp_path) as pid:
        with pytest.raises(IONError, match=f"{tmp_path} is in use .*process {pid} on .* since 20"):
            claim(str(tmp_path))
        kill(pid)
        claim(str(tmp_path))
    assert f"process {os.getpid()} on" in (tmp_path / LOCK).read_text()
    release(str(tmp_path))
    with another_process(tmp_path):
        pass


def test_the_workers_of_a_training_that_was_killed_hold_nothing(tmp_path):
    with another_process(tmp_path, with_worker=True) as pid:
        kill(pid)
        claim(str(tmp_path))
    release(str(tmp_path))


def test_a_process_may_claim_again_by_another_name_of_the_folder(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "run")
    claim(str(tmp_path / "run"))
    claim(str(tmp_path / "link"))
    release(str(tmp_path / "link"))
    release(str(tmp_path / "never claimed"))


def test_what_a_killed_training_has_begun_to_save_is_removed(tmp_path):
    for name in ("model_0000009.pth.tmp", "model_0000004.pth", "mine.tmp", LOCK):
        (tmp_path / name).write_text(f"process {os.getppid()} on this machine")
    claim(str(tmp_path))
    release(str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"model_0000004.pth", "mine.tmp", LOCK}


def test_a_disk_without_locks_is_a_warning(tmp_path, monkeypatch, caplog):
    def lockf(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(folder_lock.fcntl, "lockf", lockf)
    claim(str(tmp_path))
    release(str(tmp_path))
    assert "knows no locks (No locks available)" in caplog.text


@pytest.mark.slow
def test_train_net_leaves_the_folder_of_another_training_alone(scenes, tmp_path, train_net):
    (tmp_path / "config.yaml").write_text("its own")
    with another_process(tmp_path) as pid:
        result = train_net(*voc_arguments(scenes, tmp_path))
        assert says(result, "in use by another training", f"process {pid} ", "OUTPUT_DIR")
    assert (tmp_path / "config.yaml").read_text() == "its own"
    assert {path.name for path in tmp_path.iterdir()} == {"config.yaml", LOCK}
