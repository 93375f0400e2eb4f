"""Commands that are told to users, as they can type them."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parents[1]  # where the package is not installed from there


def python_command(*words: str) -> str:
    """The line that runs a program of this project in the Python that runs now.

    In a virtual environment that is not activated, as after ``make demo``, "python" would be
    another one, without the project's packages: then the line begins with the path.
    """
    return shlex.join([_python(), *words])


def program(path: str) -> str:
    """A program of this project, by its path in the checkout, as seen from here."""
    return os.path.relpath(_CHECKOUT / path) if (_CHECKOUT / path).exists() else path


def _python() -> str:
    found = os.path.dirname(shutil.which("python") or "")
    if sys.prefix == sys.base_prefix or found == os.path.dirname(sys.executable):
        return "python"
    near = os.path.relpath(sys.executable)
    return sys.executable if near.startswith(os.pardir) else near
