"""Proposals for all images of a dataset: in parallel, and going on where a run was stopped.

Each image's boxes are saved beside the result as soon as they are made, in ``RESULT.parts``, in a
file named after the picture and the settings. A run that finds the folder makes what is missing,
and removes the folder when the result is complete; one that runs meanwhile is refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import threading
import zipfile
from collections.abc import Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import connection, parent_process
from typing import Any, Callable

import numpy as np
from proposals_opencv import Proposer
from shared_arguments import refuse_existing
from tqdm import tqdm

from ion_d2.data.loader import ignore_signals
from ion_d2.data.proposals.proposal_file import Proposals, write_proposals
from ion_d2.data.readable import UnreadableImageError, read_image_of
from ion_d2.engine.folder_lock import claim, release
from ion_d2.errors import IONError
from ion_d2.files import write_result

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """What a worker does with a picture.

    Attributes:
        build: makes the proposer, once in each worker; picklable.
        max_boxes: the best boxes to keep.
        settings: whatever the boxes depend on; of a stopped run, only boxes made under the same
            are taken.
        skip_unreadable: give a picture that cannot be decoded no boxes, instead of stopping.
    """

    build: Callable[[], Proposer]
    max_boxes: int
    settings: dict[str, Any]
    skip_unreadable: bool = False


def generate_proposals(
    dicts: Sequence[dict[str, Any]], job: Job, output: str, *, num_workers: int
) -> Proposals:
    """Make the proposals of a dataset's dicts in several processes, and write them to a file.

    Raises:
        IONError: the result exists already or is being made, a picture is missing or broken, a
            file cannot be written, or a worker was killed.
        KeyboardInterrupt: Ctrl-C; what was made is kept.
    """
    refuse_existing(output)
    folder = output + ".parts"
    try:
        claim(folder, key="output", user="run")
    except OSError as error:
        raise IONError(
            f"{folder} cannot be written ({error.strerror}); choose another name."
        ) from error
    try:
        proposals = _generate(dicts, job, folder, num_workers)
        write_proposals(output, proposals)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        release(folder)
    return proposals


def _generate(
    dicts: Sequence[dict[str, Any]], job: Job, folder: str, num_workers: int
) -> Proposals:
    parts = [_part(folder, record, job) for record in dicts]
    todo = [(record, part) for record, part in zip(dicts, parts) if _load(part) is None]
    done = len(dicts) - len(todo)
    bar = tqdm(total=len(dicts), initial=done, unit="image", smoothing=0.05)
    # Closed at once on a Ctrl-C, so that the pool is not asked to finish all that waits.
    with bar, contextlib.closing(_run(todo, job, num_workers)) as results:
        for warning in results:
            bar.update()
            if warning:
                logger.warning("%s", warning)
    return _collect(dicts, parts)


def _run(
    todo: Sequence[tuple[dict[str, Any], str]], job: Job, num_workers: int
) -> Generator[str | None, None, None]:
    """Yield, for each picture as it is done, a warning or None."""
    pool = ProcessPoolExecutor(num_workers, initializer=_start_worker, initargs=(job,))
    try:
        for future in as_completed([pool.submit(_work, _needed(r), part) for r, part in todo]):
            yield future.result()
    except BrokenProcessPool as error:
        raise IONError(
            "A worker process was killed, as systems do when memory runs out; the same command "
            "goes on where it stopped: give fewer workers."
        ) from error
    finally:
        # After a Ctrl-C, the pictures in progress are finished and kept.
        pool.shutdown(wait=True, cancel_futures=True)


def _needed(record: dict[str, Any]) -> dict[str, Any]:
    keys = ("file_name", "image_id", "width", "height")
    return {key: record[key] for key in keys if key in record}


# What one worker process works with.
_worker: dict[str, Any] = {}


def _start_worker(job: Job) -> None:
    ignore_signals(0)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker.update(job=job, propose=job.build())


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    parent = parent_process()
    assert parent is not None  # this runs in a worker
    connection.wait([parent.sentinel])
    os._exit(1)


def _work(record: dict[str, Any], part: str) -> str | None:
    job: Job = _worker["job"]
    try:
        image = read_image_of(record, "BGR")
    except UnreadableImageError as error:
        if not job.skip_unreadable:
            raise
        _save(part, np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
        return f"No proposals: {error}"
    boxes, scores = _worker["propose"](np.ascontiguousarray(image))
    best = np.argsort(-scores, kind="stable")[: job.max_boxes]
    _save(part, boxes[best], scores[best])
    return None


def _part(folder: str, record: dict[str, Any], job: Job) -> str:
    """The file for an image's boxes; a picture that was changed or exchanged has another one."""
    state: Sequence[int] = ()
    with contextlib.suppress(OSError):  # reading the picture says what is wrong
        stat = os.stat(record["file_name"])
        state = (stat.st_size, stat.st_mtime_ns)
    key = [record["image_id"], record["file_name"], state, job.settings]
    name = hashlib.sha256(json.dumps(key, default=str).encode()).hexdigest()
    return os.path.join(folder, f"{name}.npz")


def _save(part: str, boxes: np.ndarray, scores: np.ndarray) -> None:
    advice = "make room, then the same command goes on where it stopped"
    write_result(part, lambda file: np.savez(file, boxes=boxes, scores=scores), advice)


def _load(part: str) -> tuple[np.ndarray, np.ndarray] | None:
    """The boxes and scores of a finished image; None if missing or damaged."""
    try:
        with np.load(part) as content:
            return content["boxes"], content["scores"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _collect(dicts: Sequence[dict[str, Any]], parts: Sequence[str]) -> Proposals:
    images = []
    for record, part in zip(dicts, parts):
        found = _load(part)
        if found is None:
            raise IONError(f"{part} has gone; run the same command again.")
        images.append((record["image_id"], *found))
    return Proposals.from_images(images)
