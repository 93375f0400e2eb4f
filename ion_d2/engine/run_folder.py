"""The config files in a run's folder: one of the training, one of a later evaluation."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator

from detectron2.utils import comm

TRAINED, EVALUATED = "config.yaml", "config_eval.yaml"


@contextlib.contextmanager
def writing_config(folder: str, *, evaluate: bool) -> Iterator[None]:
    """Let Detectron2 write ``config.yaml`` of a run, without losing what a training wrote there.

    The config of an evaluation goes to ``config_eval.yaml`` where there is one of a training; a
    training removes that of an earlier evaluation.
    """
    path, evaluated = (os.path.join(folder, name) for name in (TRAINED, EVALUATED))
    aside = f"{path}.aside"
    kept = evaluate and comm.is_main_process() and os.path.isfile(path)
    if kept:
        shutil.copy2(path, aside)
    elif not evaluate and comm.is_main_process():
        with contextlib.suppress(FileNotFoundError):
            os.remove(evaluated)
    try:
        yield
        if kept:
            os.replace(path, evaluated)
    finally:
        if kept:
            os.replace(aside, path)
