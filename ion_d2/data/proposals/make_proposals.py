"""Proposals for all images of a dataset: in parallel, and going on where a run was stopped.

Each image's boxes are saved beside the result as soon as they are made, in ``RESULT.parts``; a run
that finds the folder makes what is missing, and anew what belongs to a picture that has changed.
The folder goes when the result is complete.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import threading
import urllib.parse
import zipfile
from collections.abc import Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import connection, parent_process
from typing import Any, Callable

import numpy as np
from tqdm import tqdm

from ion_d2.data.loader import ignore_signals
from ion_d2.data.proposals.proposal_file import Proposals, write_proposals
from ion_d2.data.readable import UnreadableImageError, read_image_of
from ion_d2.errors import IONError
from ion_d2.files import fitting_name, replace_file

logger = logging.getLogger(__name__)

# From an (H, W, 3) uint8 BGR picture to (N, 4) corners and (N,) scores.
Proposer = Callable[[np.ndarray], "tuple[np.ndarray, np.ndarray]"]

_SETTINGS = "settings.json"


@dataclass(frozen=True)
class Job:
    """What a worker does with a picture.

    Attributes:
        build: makes the proposer, once in each worker; picklable.
        max_boxes: the best boxes to keep.
        skip_unreadable: give a picture that cannot be decoded no boxes, instead of stopping.
    """

    build: Callable[[], Proposer]
    max_boxes: int
    skip_unreadable: bool = False


def generate_proposals(
    dicts: Sequence[dict[str, Any]],
    job: Job,
    output: str,
    *,
    settings: dict[str, Any],
    num_workers: int,
) -> Proposals:
    """Make and write the proposals of a dataset.

    Args:
        dicts: Detectron2 dataset dicts.
        job: how.
        output: the proposal file to write.
        settings: whatever the boxes depend on; a stopped run goes on under the same only.
        num_workers: processes, at least 1.

    Returns:
        What was written.

    Raises:
        IONError: the result exists already, a stopped run had other settings, a picture is
            missing or broken, a file cannot be written, or a worker was killed.
        KeyboardInterrupt: Ctrl-C; what was made is kept.
    """
    if os.path.exists(output):
        raise IONError(f"{output} exists already; remove it or choose another name.")
    parts = output + ".parts"
    _open_parts(parts, settings)
    todo = [record for record in dicts if _load(parts, record) is None]
    done = len(dicts) - len(todo)
    bar = tqdm(total=len(dicts), initial=done, unit="image", smoothing=0.05)
    # Closed at once on a Ctrl-C, so that the pool is not asked to finish all that waits.
    with bar, contextlib.closing(_run(todo, job, parts, num_workers)) as results:
        for warning in results:
            bar.update()
            if warning:
                logger.warning("%s", warning)
    proposals = _collect(dicts, parts)
    write_proposals(output, proposals)
    shutil.rmtree(parts)
    return proposals


def _open_parts(parts: str, settings: dict[str, Any]) -> None:
    path = os.path.join(parts, _SETTINGS)
    try:
        os.makedirs(parts, exist_ok=True)
        if not os.path.exists(path):
            replace_file(path, lambda file: file.write(json.dumps(settings).encode()))
        with open(path, encoding="utf-8") as file:
            before = json.load(file)
    except (OSError, ValueError) as error:
        raise IONError(
            f"{path} cannot be written or read ({error}); remove {parts}, or choose another place."
        ) from error
    changed = [k for k in {**before, **settings} if before.get(k) != settings.get(k)]
    if changed:
        key = changed[0]
        raise IONError(
            f"{parts} holds what a stopped run made with {key} {before.get(key)!r} instead of "
            f"{settings.get(key)!r}; give the same to go on, or remove the folder to start anew."
        )


def _run(
    todo: Sequence[dict[str, Any]], job: Job, parts: str, num_workers: int
) -> Generator[str | None, None, None]:
    """Yield, for each picture as it is done, a warning or None."""
    pool = ProcessPoolExecutor(num_workers, initializer=_start_worker, initargs=(job, parts))
    try:
        futures = [pool.submit(_work, _needed(record)) for record in todo]
        for future in as_completed(futures):
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


def _start_worker(job: Job, parts: str) -> None:
    ignore_signals(0)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker.update(job=job, parts=parts, propose=job.build())


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    parent = parent_process()
    assert parent is not None  # this runs in a worker
    connection.wait([parent.sentinel])
    os._exit(1)


def _work(record: dict[str, Any]) -> str | None:
    job, parts = _worker["job"], _worker["parts"]
    try:
        image = read_image_of(record, "BGR")
    except UnreadableImageError as error:
        if not job.skip_unreadable:
            raise
        _save(parts, record, np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
        return f"No proposals: {error}"
    boxes, scores = _worker["propose"](np.ascontiguousarray(image))
    best = np.argsort(-scores, kind="stable")[: job.max_boxes]
    _save(parts, record, boxes[best], scores[best])
    return None


def _part(parts: str, record: dict[str, Any]) -> str:
    stem = urllib.parse.quote(str(record["image_id"]), safe="")
    return os.path.join(parts, fitting_name(stem, suffix=".npz"))


def _picture(record: dict[str, Any]) -> str:
    """What tells a picture from another one that has the same image id."""
    path = record["file_name"]
    try:
        state = os.stat(path)
    except OSError:  # reading it tells more
        return path
    return f"{path} {state.st_size} {state.st_mtime_ns}"


def _save(parts: str, record: dict[str, Any], boxes: np.ndarray, scores: np.ndarray) -> None:
    path = _part(parts, record)
    picture = _picture(record)
    try:
        replace_file(path, lambda file: np.savez(file, boxes=boxes, scores=scores, picture=picture))
    except OSError as error:
        raise IONError(
            f"{path} cannot be written ({error.strerror}); make room, then the same command goes "
            "on where it stopped."
        ) from error


def _load(parts: str, record: dict[str, Any]) -> tuple[np.ndarray, np.ndarray] | None:
    """The boxes and scores of a finished image; None if damaged, missing or of another picture."""
    try:
        with np.load(_part(parts, record)) as content:
            same = str(content["picture"]) == _picture(record)
            return (content["boxes"], content["scores"]) if same else None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _collect(dicts: Sequence[dict[str, Any]], parts: str) -> Proposals:
    loaded = []
    for record in dicts:
        part = _load(parts, record)
        if part is None:
            raise IONError(
                f"{_part(parts, record)} has gone or is damaged; run the same command again."
            )
        loaded.append(part)
    ids = [record["image_id"] for record in dicts]
    return Proposals(ids, [boxes for boxes, _ in loaded], [scores for _, scores in loaded])
