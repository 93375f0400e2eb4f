"""Log files that cannot be written any more: what is told of them."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Iterator

from .distributed import is_lost_worker


@contextlib.contextmanager
def logs_end_quietly() -> Iterator[None]:
    """Say once that a log cannot be written, where Python would print a traceback a line.

    What is logged there from then on is lost; the results of a run do not depend on it. Errors in
    TensorBoard's writer thread are not reported here, since TensorBoard raises them again when the
    next event is added.
    """
    original, in_thread = logging.Handler.handleError, threading.excepthook

    def handle(handler: logging.Handler, record: logging.LogRecord) -> None:
        error, stream = sys.exc_info()[1], getattr(handler, "stream", None)
        if error and is_lost_worker(error):  # which comes up anywhere, here too
            raise error
        if not (isinstance(error, OSError) and _silence(stream)):
            original(handler, record)
        elif stream is not sys.stderr:
            name = getattr(stream, "name", "The log")
            told = f"{name} cannot be written ({error.strerror}) and ends here; the run goes on.\n"
            sys.stderr.write(told)

    def handle_in_thread(args: threading.ExceptHookArgs) -> None:
        if not type(args.thread).__module__.startswith("tensorboard."):
            in_thread(args)

    logging.Handler.handleError = handle  # type: ignore[method-assign, assignment]
    threading.excepthook = handle_in_thread
    try:
        yield
    finally:
        logging.Handler.handleError = original  # type: ignore[method-assign]
        threading.excepthook = in_thread


def end_last_line(path: str) -> None:
    """End a text file's last line if a kill or a full disk has cut it short; others may follow."""
    with contextlib.suppress(FileNotFoundError), open(path, "rb+") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")


def _silence(stream: object) -> bool:
    """Let a stream write into nothing, so that what it still holds does no harm when it closes."""
    try:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, stream.fileno())  # type: ignore[attr-defined]
        os.close(nothing)
    except (AttributeError, OSError, ValueError):  # it is no file
        return False
    return True
