"""Malicious files: each of hostile_*.py's functions writes one and returns what reads it."""

from __future__ import annotations

import os
import sys

from torch import nn

from ion_d2.engine.checkpoint import IONCheckpointer

CANARY = "canary"
SAMPLES = {}  # name -> (what makes it, words of its refusal)


def sample(words):
    def add(make):
        SAMPLES[make.__name__] = (make, words)
        return make

    return add


class Trap:
    """Makes the canary when it is unpickled."""

    def __init__(self, folder):
        self.place = str(folder / CANARY)

    def __reduce__(self):
        return os.mkdir, (self.place,)


def written(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def loading(path):
    return lambda: IONCheckpointer(nn.Linear(4, 4)).load(str(path))


def command(folder):
    """A line of Python that makes the canary."""
    return f"{sys.executable} -c \"import os; os.mkdir('{folder / CANARY}')\""
