"""What is in a run's folder: the configs of training and evaluation, what is set aside."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.utils import comm

from ..evaluation import RESULT_FILES, evaluation_folder
from ..files import make_folder, replace_file
from .best import BEST, HISTORY
from .checkpoint import FINAL
from .folder_lock import claim, locked, release

TRAINED, EVALUATED, EARLIER = "config.yaml", "config_eval.yaml", "earlier"
TRUSTED: tuple[str, ...] = (
    *("last_checkpoint", f"{FINAL}.pth", f"{BEST}.pth", HISTORY),
    *(name for names in RESULT_FILES.values() for name in names),
)
"""Files that an earlier training in a folder may have left, and that would pass for this one's."""

logger = logging.getLogger(__name__)


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


def set_aside(cfg: CfgNode, names: Sequence[str]) -> None:
    """Move what a training before this one left in its folder to ``OUTPUT_DIR/earlier``.

    ``--resume``, reports and comparisons would take it for this training's. What the config names,
    such as the weights to start from, stays. There, files of the same name are replaced.

    Args:
        cfg: the config of the training that begins; its datasets are registered.
        names: of the files, in ``OUTPUT_DIR`` and the folders of the test sets.
    """
    root, data = Path(cfg.OUTPUT_DIR), cfg.DATASETS
    used = [part for name in (*data.TRAIN, *data.TEST) for part in name.split(":")]
    used += [cfg.MODEL.WEIGHTS, *data.PROPOSAL_FILES_TRAIN, *data.PROPOSAL_FILES_TEST]
    named = {os.path.realpath(name) for name in used}
    folders = dict.fromkeys([root, *(Path(evaluation_folder(cfg, x)) for x in data.TEST)])
    paths = [folder / name for folder in folders for name in names]
    left = [path for path in paths if path.is_file() and os.path.realpath(path) not in named]
    for path in left:
        place = root / EARLIER / path.relative_to(root)
        make_folder(place.parent, "make room or choose another OUTPUT_DIR")
        os.replace(path, place)
    if left:
        told = "%s in %s are of an earlier training: moved to its folder %r. To go on with that "
        told += "training instead, move them back and add --resume."
        logger.warning(told, ", ".join(str(path.relative_to(root)) for path in left), root, EARLIER)
