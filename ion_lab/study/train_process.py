"""One run as a process of train_net.py."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from typing import IO

from ion_lab.study.runs import Run
from ion_lab.study.starting_weights import extract_parts
from ion_lab.study.store import RESULTS, RunFolder

# One thread, so that parallel trainings do not disturb each other and the number of cores does not
# change a result: sums over another number of threads differ in the last bit.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class Training:
    """A run with its folder, that of the run it starts from and, once launched, its process."""

    process: subprocess.Popen[bytes]

    def __init__(self, run: Run, folder: RunFolder, start: RunFolder | None) -> None:
        self.run, self.folder, self.start = run, folder, start
        self._lock: IO[str] | None = None
        self._begun = 0.0

    def arguments(self) -> list[str]:
        """Arguments of train_net.py: it begins, goes on from the last checkpoint, or evaluates."""
        run = self.run
        mode = "--resume" if run.trains else "--eval-only"
        words = ["--config-file", str(run.config), mode, *run.overrides]
        if self.start is not None:
            weights = self.start.weights if run.parts is None else self.folder.taken_over
            words += ["MODEL.WEIGHTS", str(weights)]
        words += ["DATASETS.TRAIN", repr((run.pictures.train,))]
        words += ["DATASETS.TEST", repr((run.pictures.test,))]
        return [*words, "OUTPUT_DIR", str(self.folder.path)]

    def launch(self, command: Sequence[str], lock: IO[str]) -> None:
        """Start the process.

        Args:
            command: words of the program.
            lock: of the folder; the process holds it too, so that the folder stays locked should
                this program be killed and the training go on.

        Raises:
            IONError: what it starts from cannot be read or written.
        """
        self.folder.forget_lost_checkpoint()
        if self.start is not None and self.run.parts is not None:
            extract_parts(self.start.weights, self.run.parts, self.folder.taken_over)
        self.folder.begin()
        self._lock, self._begun = lock, time.monotonic()
        with self.folder.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *self.arguments()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **_ONE_THREAD},
                # A terminal's Ctrl-C reaches the study alone, which then stops its trainings.
                start_new_session=True,
                pass_fds=(lock.fileno(),),
            )

    @property
    def ended(self) -> bool:
        """Whether the process has ended."""
        return self.process.poll() is not None

    def close(self) -> str:
        """Wait for the process to end, note what it did, and unlock the folder.

        Returns:
            Why the run is not finished; "" if it is.
        """
        status = self.process.wait()
        self.folder.end(time.monotonic() - self._begun)
        reason = self._failure(status)
        if not reason:
            self.folder.finish()
        if self._lock is not None:
            self._lock.close()
        return reason

    def _failure(self, status: int) -> str:
        if status:
            lines = self.folder.log.read_text(encoding="utf-8", errors="replace").split("\n")
            last = next((line.strip() for line in reversed(lines) if line.strip()), "no output")
            return f"exit status {status}, {last}"
        written = [self.folder.path / RESULTS, *([self.folder.weights] if self.run.trains else [])]
        for file in written:
            if not file.is_file():
                return f"it wrote no {file.name}"
        return ""
