"""The folder of demo.py's results: which names are free, and which files may be replaced."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from ion_d2.errors import IONError
from ion_d2.files import fitting_name

# A line for each file written: its path from the folder, and its size and time when it was done.
LEDGER = ".demo-files.jsonl"
ELSEWHERE = "choose another --output"  # what to do where nothing can be written


class OutputFolder:
    """Remembers the files of earlier runs, which alone are replaced, unless changed since."""

    def __init__(self, path: Path) -> None:
        """Read what earlier runs wrote; the folder need not be there."""
        self.path = path
        self._taken: set[str] = set()
        self._ours: dict[str, list[int]] = {}
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for line in (path / LEDGER).read_text(encoding="utf-8").splitlines():
                # The last line of a run that was killed.
                with contextlib.suppress(ValueError, TypeError):
                    name, *state = json.loads(line)
                    self._ours[name] = state

    def is_ours(self, path: Path) -> bool:
        """Whether the file is there as a run wrote it."""
        told = self._ours.get(self._name(path))
        return told is not None and path.exists() and told == _state(path)

    def wrote(self, path: Path) -> None:
        """Remember a file that is complete."""
        name, state = self._name(path), _state(path)
        self._ours[name] = state
        with open(self.path / LEDGER, "a", encoding="utf-8") as file:
            file.write(json.dumps([name, *state]) + "\n")

    def keep(self, paths: Iterable[Path]) -> None:
        """Let no result take the place of these files."""
        self._taken.update(map(_identity, paths))

    def free(self, wanted: Path, suffix: str) -> Path:
        """Take a name like the wanted one, with a number where that is somebody else's."""
        place, number = wanted.with_name(fitting_name(wanted.stem, suffix=suffix)), 1
        while _identity(place) in self._taken or (place.exists() and not self.is_ours(place)):
            number += 1
            place = wanted.with_name(fitting_name(wanted.stem, suffix=f"_{number}{suffix}"))
        self._taken.add(_identity(place))
        return place

    def require_free(self, path: Path) -> None:
        """Look for what would be lost at the place of a result.

        Raises:
            IONError: there is something that no run wrote, or that was changed since.
        """
        if os.path.lexists(path) and not self.is_ours(path):
            raise IONError(
                f"{path} is there, and is not as demo.py wrote it for --output {self.path}; move "
                f"it away or {ELSEWHERE}."
            )

    def _name(self, path: Path) -> str:
        return os.path.relpath(path, self.path)


def _state(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]


def _identity(path: Path) -> str:
    """Name a file alike however it is reached; case does not tell files apart on every system."""
    return str(path.resolve()).lower()
