"""The folders of runs. A run is found by its settings, so that tables share it."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

from ion_d2.data.plain_files import read_json
from ion_d2.engine.folder_lock import locked
from ion_d2.evaluation.results_file import write_json
from ion_d2.files import fitting_name, make_folder
from ion_lab.study.run_settings import same_settings
from ion_lab.study.runs import Run

RESULTS = "voc_results.json"
"""What a training's evaluation writes into its folder."""

_STATE = "run.json"


def file_name(text: str) -> str:
    """A file name made of a text: whatever is no letter, digit, "_" or "." becomes "-"."""
    return re.sub(r"[^\w.]+", "-", text).strip("-")


class RunFolder:
    """Where a run trains (its ``OUTPUT_DIR``), with the note of how far it is."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = path / "study.log"  # all that the training's processes printed
        self.weights = path / "model_final.pth"
        self.taken_over = path / "start.pth"  # parts of another detector that it starts from

    def state(self) -> dict[str, Any]:
        """The note of the run.

        "name", "settings", "finished", "seconds" that the training took so far, and "begun": when a
        process began whose end is not noted yet, or None.

        Raises:
            IONError: it cannot be read.
        """
        file = self.path / _STATE
        return read_json(file, f"remove the folder {self.path} to train this run anew")

    def write_state(self, **changes: Any) -> None:
        """Write the note, or change a part of it."""
        exists = (self.path / _STATE).exists()
        write_json(str(self.path / _STATE), {**(self.state() if exists else {}), **changes})

    def begin(self) -> None:
        """Note that a process begins.

        One before it whose end was not noted, because the study was killed, took until its last
        words in the log.
        """
        state = self.state()
        seconds, begun = state["seconds"], state.get("begun")
        if begun is not None and self.log.is_file():
            seconds += max(0.0, self.log.stat().st_mtime - begun)
        self.write_state(seconds=round(seconds, 1), begun=time.time())

    def end(self, seconds: float) -> None:
        """Note that the process has ended, after so many seconds."""
        self.write_state(seconds=round(self.state()["seconds"] + seconds, 1), begun=None)

    @property
    def finished(self) -> bool:
        """Whether the run is trained and evaluated."""
        return bool(self.state()["finished"]) and (self.path / RESULTS).is_file()

    def forget_lost_checkpoint(self) -> None:
        """Have a training begin anew whose weights were removed once it was finished."""
        note = self.path / "last_checkpoint"
        if note.is_file() and not (self.path / note.read_text(encoding="utf-8")).is_file():
            note.unlink()

    def finish(self) -> None:
        """Note that the run is finished, and remove the checkpoints on the way to its end."""
        self.write_state(finished=True)
        self.taken_over.unlink(missing_ok=True)
        for checkpoint in self.path.glob("model_[0-9]*.pth"):
            checkpoint.unlink()


class Store:
    """All runs under a folder, which is created where it is missing."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[str, RunFolder] = {}
        make_folder(root, "choose another --out")

    def folder(self, run: Run) -> RunFolder:
        """The folder of a run: the one made for its settings, or a new one, with a note.

        Raises:
            IONError: a folder cannot be read or written.
        """
        found = self.known(run)
        if found is None:
            with locked(self._root / "lock"):
                found = self._known[_key(run)] = self._find(run) or self._create(run)
        return found

    def known(self, run: Run) -> RunFolder | None:
        """The folder that was made for a run's settings, if there is one.

        Raises:
            IONError: a folder cannot be read.
        """
        key = _key(run)
        if key not in self._known and (found := self._find(run)) is not None:
            self._known[key] = found
        return self._known.get(key)

    def _find(self, run: Run) -> RunFolder | None:
        for note in sorted(self._root.glob(f"*/{_STATE}")):
            folder = RunFolder(note.parent)
            if same_settings(folder.state()["settings"], run.settings):
                return folder
        return None

    def _create(self, run: Run) -> RunFolder:
        name = fitting_name(file_name(run.name), most=240)  # a number may follow
        path, number = self._root / name, 1
        while path.exists():
            number += 1
            path = self._root / f"{name}_{number}"
        path.mkdir()
        folder = RunFolder(path)
        folder.write_state(name=run.name, settings=run.settings, finished=False, seconds=0.0)
        return folder


def _key(run: Run) -> str:
    return json.dumps(run.settings, sort_keys=True)
