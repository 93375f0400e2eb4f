"""The pictures of a study: synthetic scenes, written where they are missing, and given folders."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from ion_d2.data.catalog import ensure_registered
from ion_d2.data.sem_seg import add_label_files
from ion_d2.errors import IONError
from ion_d2.files import make_folder
from ion_lab.scenes import SPLITS, SceneSettings, generate_scenes
from ion_lab.scenes.scene_set import SCENES_VERSION
from ion_lab.study.table import Data


class Pictures(NamedTuple):
    """Pictures that are there."""

    train: str  # dataset name, as in ``DATASETS.TRAIN``
    test: str
    identity: dict[str, Any]  # what tells them from other pictures, wherever they lie
    # Digests of the label maps, with those of folders as in ``DATASETS.SEM_SEG_DIRS``; None for
    # scenes, which draw them by their arguments.
    label_maps: Callable[[tuple[str, ...]], list[str]] | None = None


def prepare_pictures(data: Data, folder: Path, given: Mapping[str, Path]) -> Pictures:
    """Make a table's pictures available.

    Args:
        data: which ones.
        folder: under which scenes are written.
        given: name -> VOC-layout folder, as the user gave them.

    Raises:
        IONError: a folder was not given, or its data is missing or broken.
    """
    if data.scenes is not None:
        return _scenes(data.scenes, folder)
    if data.folder not in given:
        raise IONError(f"{data.name} needs a folder in VOC layout: add --data {data.folder}=PATH.")
    root = os.path.abspath(given[data.folder])
    train, test = (f"voc:{root}:{split}" for split in (data.train, data.test))
    ensure_registered([train, test])
    labels = [_fingerprint(name) for name in (train, test)]
    # The rows and seeds of a table ask for the same.
    label_maps = functools.cache(functools.partial(_digest_label_maps, (train, test)))
    return Pictures(train, test, {"labels": labels}, label_maps)


def known_pictures(pictures: Pictures, cfg: CfgNode) -> dict[str, Any]:
    """The identity of pictures for a run: with the label maps where it learns from them.

    Raises:
        IONError: a label map or a folder of them cannot be read.
    """
    if pictures.label_maps is None or not cfg.MODEL.SEG_REGULARIZER_ON:
        return pictures.identity
    folders = tuple(cfg.DATASETS.SEM_SEG_DIRS)
    return {**pictures.identity, "label_maps": pictures.label_maps(folders)}


def _scenes(arguments: Mapping[str, Any], folder: Path) -> Pictures:
    others = {k: v for k, v in arguments.items() if k not in ("train", "test")}
    settings = SceneSettings(**others)  # refuses bad arguments before anything is written
    root = folder.absolute() / _scene_folder(arguments, settings)
    make_folder(folder, "choose another --out")
    counts = {"num_train": arguments["train"], "num_test": arguments["test"]}
    generate_scenes(root, **counts, **others)
    identity = {"version": SCENES_VERSION, **counts, **asdict(settings)}
    identity["distance"] = settings.min_distance
    train, test = (f"voc:{root}:{split}" for split in SPLITS)
    return Pictures(train, test, {"scenes": identity})


def _scene_folder(arguments: Mapping[str, Any], settings: SceneSettings) -> str:
    parts = [*settings.families, settings.cue, f"{settings.size}px"]
    parts += [f"distance{settings.min_distance}", f"seed{settings.seed}"]
    return "_".join([*parts, f"{arguments['train']}+{arguments['test']}"])


def _fingerprint(name: str) -> str:
    """Digest of a dataset's labels, which says the same wherever the files lie."""
    told = [
        {key: value for key, value in record.items() if "file_name" not in key}
        for record in DatasetCatalog.get(name)
    ]
    return _digest(told)


def _digest_label_maps(names: Sequence[str], folders: Sequence[str]) -> list[str]:
    """A digest for each dataset, of the files that its records name."""
    records = [add_label_files(DatasetCatalog.get(name), folders) for name in names]
    return [_digest([_digest_file(r.get("sem_seg_file_name")) for r in each]) for each in records]


def _digest_file(path: str | None) -> str | None:
    if path is None:
        return None
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise IONError(f"Label {path} cannot be read ({error}); replace or remove it.") from error


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()
