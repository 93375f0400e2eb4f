"""A log that cannot be written is told once; one that was cut short can go on."""

import errno
import logging
import threading

import pytest

from ion_d2.engine.log_files import end_last_line, logs_end_quietly


def test_the_loss_of_a_worker_is_raised_where_it_meets_a_log():
    class Interrupted(logging.StreamHandler):
        def format(self, record):
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    handler = Interrupted()
    with logs_end_quietly(), pytest.raises(RuntimeError, match="pid 7"):
        handler.handle(logging.makeLogRecord({"msg": "told"}))


def test_mistakes_in_the_call_keep_their_traceback(capfd):
    handler = logging.StreamHandler()
    with logs_end_quietly():
        handler.handle(logging.makeLogRecord({"msg": "%d", "args": ("no number",)}))
    assert "TypeError" in capfd.readouterr().err


class OfTensorBoard(threading.Thread):
    __module__ = "tensorboard.summary.writer.event_file_writer"


def test_an_error_in_tensorboards_thread_is_left_to_the_one_that_waits_for_it(monkeypatch):
    told = []
    monkeypatch.setattr(threading, "excepthook", lambda args: told.append(args.exc_value))

    def fail(error):
        raise error

    full = OSError(errno.ENOSPC, "No space left")
    with logs_end_quietly():
        for kind in (OfTensorBoard, threading.Thread):
            thread = kind(target=fail, args=(full,))
            thread.start()
            thread.join()
            assert told == ([] if kind is OfTensorBoard else [full])


@pytest.mark.parametrize(
    ("before", "after"),
    [("", ""), ("{}\n", "{}\n"), ('{}\n{"lo', '{}\n{"lo\n'), ("x", "x\n"), (None, None)],
)
def test_a_line_that_was_cut_short_is_ended(before, after, tmp_path):
    path = tmp_path / "metrics.json"
    if before is not None:
        path.write_text(before)
    end_last_line(str(path))
    assert (path.read_text() if path.exists() else None) == after
