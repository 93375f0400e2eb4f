"""Locks between processes, where the disk knows none."""

import errno

from ion_lab.study.locks import try_lock


def test_a_disk_without_locks_is_used_all_the_same(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    with try_lock(tmp_path / "lock") as lock:
        assert lock is not None
