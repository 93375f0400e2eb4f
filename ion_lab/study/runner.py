"""Trainings as processes: several at a time, stopped in good order and continued."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ion_d2.errors import IONError
from ion_lab.study.locks import try_lock
from ion_lab.study.runs import Run
from ion_lab.study.store import RunFolder, Store
from ion_lab.study.train_process import Training

_POLL_SECONDS = 0.2
_STOP_SECONDS = 120
# What a small model takes at most; the pictures of the study are small.
_BYTES_PER_TRAINING = 2 * 2**30


class Interrupted(Exception):
    """Ctrl-C or SIGTERM came: the trainings are stopped, and can be continued."""


def default_jobs() -> int:
    """Trainings at a time that this machine has cores and free memory for, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    free = _free_bytes()
    by_memory = cores if free is None else free // _BYTES_PER_TRAINING
    return int(max(1, min(cores or 1, by_memory or 1)))


def _free_bytes() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next(
        (int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), None
    )


class Runner:
    """Runs trainings that are not finished yet, each in a folder of its own."""

    def __init__(
        self, store: Store, command: Sequence[str], jobs: int, tell: Callable[[str], None]
    ) -> None:
        """
        Args:
            store: folders of the runs.
            command: words of the program that trains, to which train_net.py's arguments are added.
            jobs: trainings at a time, each with one thread.
            tell: is called with a line for the user.
        """
        self._store, self._command, self._jobs, self._tell = store, list(command), jobs, tell
        self._waiting: list[Training] = []
        self._active: list[Training] = []
        self._ended: dict[Path, bool] = {}  # folder -> whether it is finished
        self._busy: set[Path] = set()
        self._starts: set[Path] = set()  # folders whose weights others start from

    def run(self, runs: Sequence[Run], finished: Callable[[], object]) -> list[str]:
        """Train and evaluate what is not finished, and what it starts from where that is needed.

        Args:
            runs: in the order in which to start them.
            finished: is called after each training that ended well.

        Returns:
            A sentence for each run that failed, with its log file.

        Raises:
            Interrupted: by Ctrl-C or SIGTERM.
            IONError: a folder cannot be read or written.
        """
        self._waiting = self._trainings(runs)
        failures: list[str] = []
        try:
            while self._waiting or self._active:
                failures += self._reap(finished)
                failures += self._start()
                if self._waiting or self._active:
                    time.sleep(_POLL_SECONDS)
        except KeyboardInterrupt as stop:
            raise Interrupted from stop
        finally:
            self._stop()
        return failures

    def _trainings(self, runs: Sequence[Run]) -> list[Training]:
        """The trainings, each once, after those that they start from."""
        found: dict[Path, Training] = {}
        for run in runs:
            self._add(run, found)
        done = [training for training in found.values() if self._is_done(training.folder)]
        self._ended = {training.folder.path: True for training in done}
        if done:
            self._tell(f"{len(done)} of {len(found)} runs are finished already.")
        return [training for training in found.values() if training not in done]

    def _add(self, run: Run, found: dict[Path, Training]) -> RunFolder:
        """Add a training, behind what it starts from where that is needed."""
        folder, start = self._store.folder(run), None
        if run.start is not None and not self._is_done(folder):
            self._starts.add(self._store.folder(run.start).path)
            start = self._add(run.start, found)
        if folder.path not in found or found[folder.path].start is None:
            found[folder.path] = Training(run, folder, start)
        return folder

    def _is_done(self, folder: RunFolder) -> bool:
        """Whether a run is finished, with its weights where another starts from them."""
        return folder.finished and (folder.path not in self._starts or folder.weights.is_file())

    def _start(self) -> list[str]:
        """Start what can start; sentences on what cannot, because its start failed."""
        failures = []
        for training in list(self._waiting):
            ready = training.start is None or self._ended.get(training.start.path)
            if ready is False:
                self._waiting.remove(training)
                self._ended[training.folder.path] = False
                failures.append(f"{training.run.name}: what it starts from failed.")
            elif ready and len(self._active) < self._jobs:
                failures += self._launch(training)
        return failures

    def _launch(self, training: Training) -> list[str]:
        """Start a training, unless another process has it; a sentence if it cannot be started."""
        lock = try_lock(training.folder.path / "lock")
        if lock is None:
            if training.folder.path not in self._busy:
                self._busy.add(training.folder.path)
                self._tell(f"{training.run.name}: another process trains it; waiting.")
            return []
        self._waiting.remove(training)
        if self._is_done(training.folder):  # by that process
            self._ended[training.folder.path] = True
            lock.close()
            return []
        try:
            training.launch(self._command, lock)
        except IONError as error:
            self._ended[training.folder.path] = False
            lock.close()
            return [self._failed(f"{training.run.name}: {error}")]
        self._active.append(training)
        self._tell(f"{training.run.name}: started, log {training.folder.log}")
        return []

    def _failed(self, sentence: str) -> str:
        self._tell(f"FAILED {sentence}")
        return sentence

    def _reap(self, finished: Callable[[], object]) -> list[str]:
        """Take note of the trainings that ended; sentences on those that failed."""
        failures = []
        for training in [t for t in self._active if t.ended]:
            self._active.remove(training)
            reason = training.close()
            self._ended[training.folder.path] = not reason
            if reason:
                told = f"{training.run.name}: {reason}; log {training.folder.log}"
                failures.append(self._failed(told))
                continue
            seconds = training.folder.state()["seconds"]
            left = len(self._waiting) + len(self._active)
            self._tell(f"{training.run.name}: finished in {seconds:.0f} s; {left} runs left.")
            finished()
        return failures

    def _stop(self) -> None:
        """End the trainings that are still running; each saves a checkpoint."""
        for training in self._active:
            training.process.terminate()
        deadline = time.monotonic() + _STOP_SECONDS
        try:
            for training in self._active:
                training.process.wait(timeout=max(0.0, deadline - time.monotonic()))
        except (KeyboardInterrupt, subprocess.TimeoutExpired):
            for training in self._active:
                training.process.kill()
        for training in self._active:
            training.close()
        self._active.clear()
