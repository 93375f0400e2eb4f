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
from ..evaluation.results_file import write_text
from ..files import make_folder, replace_file
from .best import BEST, HISTORY
from .checkpoint import FINAL
from .folder_lock import locked

TRAINED, EVALUATED, EARLIER = "config.yaml", "config_eval.yaml", "earlier"
TRUSTED: tuple[str, ...] = (
    *("last_checkpoint", f"{FINAL}.pth", f"{BEST}.pth", HISTORY),
    *("metrics.json", "events.out.tfevents.*"),
    *(name for names in RESULT_FILES.values() for name in names),
)
"""Files that an earlier training in a folder may have left, and that would pass for this one's.

As patterns of a shell.
"""

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def config_stays(folder: str) -> Iterator[None]:
    """Let Detectron2 write ``config.yaml`` of a run that may yet be refused, and take it away.

    What was there comes back, also where the program was killed in between.
    """
    if not comm.is_main_process():
        yield
        return
    os.makedirs(os.path.abspath(folder), exist_ok=True)
    path = os.path.join(folder, TRAINED)
    aside = f"{path}.aside"
    with _config_locked(folder):  # an evaluation may start when another one does
        if os.path.isfile(aside):  # a program was killed in the lines below
            os.replace(aside, path)
        if kept := os.path.isfile(path):
            content = Path(path).read_bytes()
            replace_file(aside, lambda file: file.write(content))
        try:
            yield
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.replace(aside, path) if kept else os.remove(path)


def write_config(cfg: CfgNode, *, evaluated: bool) -> None:
    """Write the config of a training that begins, or of an evaluation whose results are written.

    It is ``config.yaml``, but of an evaluation beside a training's ``config_eval.yaml``, which the
    next training removes. The main process alone writes.

    Raises:
        IONError: the file cannot be written.
    """
    if not comm.is_main_process():
        return
    trained, beside = (os.path.join(cfg.OUTPUT_DIR, name) for name in (TRAINED, EVALUATED))
    with _config_locked(cfg.OUTPUT_DIR):  # an evaluation that starts may have it aside
        write_text(beside if evaluated and os.path.isfile(trained) else trained, cfg.dump())
        if not evaluated:
            with contextlib.suppress(FileNotFoundError):
                os.remove(beside)


def _config_locked(folder: str) -> contextlib.AbstractContextManager[None]:
    return locked(os.path.join(folder, f"{TRAINED}.lock"))


def set_aside(cfg: CfgNode, names: Sequence[str]) -> None:
    """Move what a training before this one left in its folder to ``OUTPUT_DIR/earlier``.

    ``--resume``, reports and comparisons would take it for this training's. Its configs go with it.
    What the config names, such as the weights to start from, stays. There, files of the same name
    are replaced.

    Args:
        cfg: the config of the training that begins; its datasets are registered.
        names: of the files, or patterns, in ``OUTPUT_DIR`` and the folders of the test sets.
    """
    root, data = Path(cfg.OUTPUT_DIR), cfg.DATASETS
    used = [part for name in (*data.TRAIN, *data.TEST) for part in name.split(":")]
    used += [cfg.MODEL.WEIGHTS, *data.PROPOSAL_FILES_TRAIN, *data.PROPOSAL_FILES_TEST]
    named = {os.path.realpath(name) for name in used}
    folders = dict.fromkeys([root, *(Path(evaluation_folder(cfg, x)) for x in data.TEST)])
    paths = [path for folder in folders for name in names for path in sorted(folder.glob(name))]
    left = [path for path in paths if path.is_file() and os.path.realpath(path) not in named]
    settings = [path for name in (TRAINED, EVALUATED) if (path := root / name).is_file()]
    for path in [*left, *settings] if left else ():
        place = root / EARLIER / path.relative_to(root)
        make_folder(place.parent, "make room or choose another OUTPUT_DIR")
        os.replace(path, place)
    if left:
        told = "%s in %s are of an earlier training: moved to its folder %r. To go on with that "
        told += "training instead, move them back and add --resume."
        logger.warning(told, ", ".join(str(path.relative_to(root)) for path in left), root, EARLIER)
