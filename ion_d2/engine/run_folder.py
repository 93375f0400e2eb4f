"""The config files in a run's folder: one of the training, one of a later evaluation."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from detectron2.utils import comm

from ..files import replace_file
from .folder_lock import claim, locked, release

TRAINED, EVALUATED = "config.yaml", "config_eval.yaml"


@contextlib.contextmanager
def writing_config(folder: str, *, evaluate: bool) -> Iterator[None]:
    """Let Detectron2 write ``config.yaml`` of a run, without losing what a training wrote there.

    The config of an evaluation goes to ``config_eval.yaml`` where there is one of a training; a
    training claims the folder and removes that of an earlier evaluation.

    Raises:
        IONError: a training of another process is writing there.
    """
    if not evaluate:
        claim(folder)
    if not comm.is_main_process():
        yield
        return
    try:
        os.makedirs(os.path.abspath(folder), exist_ok=True)
        # An evaluation may start when another one does.
        with locked(os.path.join(folder, f"{TRAINED}.lock")):
            yield from _keeping(folder, evaluate)
    except BaseException:
        if not evaluate:
            release(folder)
        raise


def _keeping(folder: str, evaluate: bool) -> Iterator[None]:
    path, evaluated = (os.path.join(folder, name) for name in (TRAINED, EVALUATED))
    aside = f"{path}.aside"
    if os.path.isfile(aside):  # a program was killed in the lines below
        os.replace(aside, path)
    kept = os.path.isfile(path)
    if kept:
        content = Path(path).read_bytes()
        replace_file(aside, lambda file: file.write(content))
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # the disk may take nothing, and this be a half
            os.replace(aside, path) if kept else os.remove(path)
        raise
    if kept and evaluate:
        os.replace(path, evaluated)
        os.replace(aside, path)
    elif not evaluate:
        for left in (evaluated, aside):
            with contextlib.suppress(FileNotFoundError):
                os.remove(left)
