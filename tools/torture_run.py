"""One run of train_net.py for tools/torture.py: its process says where it is, its disk is slow."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

import matplotlib.pyplot  # noqa: E402, F401 (what is imported here, no run has to import)
import pycocotools.cocoeval  # noqa: E402, F401
import torch.utils.tensorboard  # noqa: E402, F401

import ion_d2.files  # noqa: E402
import train_net  # noqa: E402
from ion_d2.engine.setup import run_cli  # noqa: E402
from ion_d2.engine.steps import PassTrainer  # noqa: E402
from ion_d2.engine.training_parts import IONBuilders  # noqa: E402

PHASES = ("start", "training", "evaluation", "results", "checkpoint")
WRITES = ("results", "checkpoint")


class Marks(ctypes.Structure):
    """What a run tells of itself, in memory that outlives it."""

    _fields_ = [
        ("steps", ctypes.c_int),  # that it has finished
        ("done", ctypes.c_int),  # that the training has finished, with those of earlier runs
        ("phase", ctypes.c_int),  # index in PHASES
        ("counts", ctypes.c_int * len(PHASES)),  # how often it entered each
        ("seconds", ctypes.c_double * len(PHASES)),  # and how long it was in each
    ]


class Run:
    """train_net.py in a process of its own, forked from this one, which has imported everything."""

    def __init__(self, argv: list[str], log: Path, *, marked: bool = True, **environ: str) -> None:
        """Start it; what it prints is added to the log. Unmarked, it runs as it does elsewhere."""
        self.marks = Marks.from_buffer(mmap.mmap(-1, ctypes.sizeof(Marks)))
        self.log, self._before = log, log.stat().st_size if log.exists() else 0
        self.status: int | None = None  # once it has ended; below 0 for a signal
        self.seconds, self._began = 0.0, time.monotonic()
        sys.stdout.flush()
        self.pid = os.fork()
        if not self.pid:
            _be_run(argv, log, environ, self.marks if marked else None)

    @property
    def phase(self) -> str:
        """Where it is, or was when it ended."""
        return PHASES[self.marks.phase]

    def running(self) -> bool:
        """Whether it has not ended yet."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
                self.seconds = time.monotonic() - self._began
        return self.status is None

    def wait(self, seconds: float) -> int | None:
        """Wait so long for its end; returns its status, None if it still runs."""
        wait_until(lambda: not self.running(), seconds)
        return self.status

    def kill(self) -> bool:
        """End it as the kernel does when memory is short; whether it was still there."""
        if self.running():
            os.kill(self.pid, signal.SIGKILL)
            self.wait(60)
        return self.status == -signal.SIGKILL

    def workers(self) -> list[int]:
        """The processes that load its pictures."""
        children = Path("/proc", str(self.pid), "task", str(self.pid), "children")
        return [int(pid) for pid in children.read_text().split()]

    def errors(self) -> list[str]:
        """The sentences with which it ended, and the starts of tracebacks."""
        with self.log.open(errors="replace") as file:
            file.seek(self._before)
            lines = file.read().splitlines()
        return [x for x in lines if x.startswith("error: ") or "Traceback" in x]


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait at most so long for something that another process does."""
    deadline = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < deadline:
        time.sleep(0.0005)
    return met


def _be_run(argv: list[str], log: Path, environ: dict[str, str], marks: Marks | None) -> None:
    status: Any = 1
    try:
        os.setsid()
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.environ.update(environ)
        sys.argv = ["train_net.py", *argv]
        if marks is not None:
            _mark(marks)
        run_cli(train_net.cli)
    except SystemExit as stop:
        status = stop.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _mark(marks: Marks) -> None:
    """Have this process note its steps, evaluations and writes, and write slowly."""

    @contextlib.contextmanager
    def inside(phase: str) -> Iterator[None]:
        before, began = marks.phase, time.monotonic()
        marks.phase = PHASES.index(phase)
        marks.counts[marks.phase] += 1
        yield  # what an error leaves is the place where it came up
        marks.seconds[marks.phase] += time.monotonic() - began
        marks.phase = before

    def run_step(trainer: PassTrainer, step: Callable[..., None] = PassTrainer.run_step) -> None:
        marks.phase = PHASES.index("training")
        step(trainer)
        marks.steps, marks.done = marks.steps + 1, trainer.iter + 1

    def test(cls: type, *args: Any, test: Any = IONBuilders.test.__func__, **kwargs: Any) -> Any:
        with inside("evaluation"):
            return test(cls, *args, **kwargs)

    original = ion_d2.files.replace_file

    def replace_file(path: str, write: Any) -> None:
        checkpoint = path.endswith((".pth", "last_checkpoint"))
        with inside("checkpoint" if checkpoint else "results"):
            original(path, lambda file: write(_SlowFile(file)))

    PassTrainer.run_step = run_step
    IONBuilders.test = classmethod(test)
    for module in list(sys.modules.values()):
        if vars(module).get("replace_file") is original:
            module.replace_file = replace_file
    os.replace = _slowly(os.replace)
    os.fsync = _slowly(os.fsync)


def _slowly(function: Callable[..., Any]) -> Callable[..., Any]:
    def slow(*args: Any) -> Any:
        time.sleep(0.01)
        result = function(*args)
        time.sleep(0.01)
        return result

    return slow


class _SlowFile:
    """Writes in small pieces, each of which takes its time, so that a kill meets half a file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, data: Any) -> int:
        data = memoryview(data).cast("B")
        for start in range(0, len(data), 16384):
            self._file.write(data[start : start + 16384])
            self._file.flush()
            time.sleep(0.0003)
        return len(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
