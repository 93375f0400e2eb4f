"""Writing a whole set of scenes, once."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from ion_d2.engine.folder_lock import locked
from ion_d2.errors import IONError
from ion_lab.scenes.compose import SPLITS, compose_scene
from ion_lab.scenes.scene_settings import SceneSettings
from ion_lab.scenes.voc_writer import PICTURE_FOLDERS, SPLIT_FOLDERS, write_scene, write_split

logger = logging.getLogger(__name__)

SCENES_VERSION = 3
"""Raised whenever the same arguments give other pictures than before."""

_KIND = "ion_d2 synthetic scenes"
_MANIFEST = "scenes.json"
# The manifest's name until every file of the set is written; renaming it is the last step.
_UNFINISHED = "scenes.unfinished.json"
_FOLDERS = (*PICTURE_FOLDERS, "ImageSets")
_OWN = re.compile(rf"({'|'.join(SPLITS)})(_\d{{6}}\.(jpg|png|xml)|\.txt)")  # what is written there


class SceneSet(NamedTuple):
    """A finished set on disk, in VOC layout, with the splits "trainval" and "test"."""

    root: Path
    classes: tuple[str, ...]  # in the order of their ids
    num_train: int
    num_test: int
    written: bool  # False if the same set was there already and nothing had to be done


def generate_scenes(
    out_dir: str | os.PathLike,
    *,
    num_train: int,
    num_test: int,
    families: Sequence[str] = ("outside", "inside", "ordinary"),
    seed: int = 0,
    size: int = 256,
    distance: int | None = None,
    cue: str = "band",
) -> SceneSet:
    """Write a set of synthetic scenes in VOC layout, unless it is there already.

    Picture i of a split depends only on the arguments other than the two counts, so a larger set
    begins with the smaller one.

    Args:
        out_dir: folder to write; absent, empty, or an earlier set, which is replaced if its
            arguments differ.
        num_train: pictures in the split "trainval".
        num_test: pictures in the split "test".
        families: see :class:`~ion_lab.scenes.SceneSettings`, like the others.
        seed: of all randomness.
        size: side of the square pictures in pixels.
        distance: least number of rows between a cue and its objects.
        cue: of the family "outside".

    Raises:
        IONError: for impossible arguments, a folder with other contents, or a disk that cannot be
            written.
    """
    settings = SceneSettings(families, seed, size, distance, cue)
    counts = dict(zip(SPLITS, (num_train, num_test)))
    for split, count in counts.items():
        if count < 0:
            raise IONError(f"{count} pictures asked for in split {split!r}; give 0 or more")
    root = Path(os.path.abspath(out_dir))
    manifest = _manifest(settings, counts)
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with locked(root.parent / f".{root.name}.lock"):  # another program may write it, too
            written = _prepare(root, manifest)
            if written:
                _write_set(root, settings, counts)
    except OSError as error:
        raise IONError(
            f"cannot write scenes into {root}: {error}; choose another folder"
        ) from error
    return SceneSet(root, settings.classes, num_train, num_test, written)


def _manifest(settings: SceneSettings, counts: dict[str, int]) -> dict[str, Any]:
    arguments = {**asdict(settings), "families": list(settings.families), **counts}
    return {"kind": _KIND, "version": SCENES_VERSION, "arguments": arguments}


def _prepare(root: Path, manifest: dict[str, Any]) -> bool:
    """Make ``root`` ready for the set; False if the very set is in it."""
    finished = _read_manifest(root / _MANIFEST)
    if finished == manifest and _is_whole(root, manifest):
        logger.info("Scenes already in %s", root)
        return False
    ours = finished or _read_manifest(root / _UNFINISHED)
    if root.exists() and not ours and (not root.is_dir() or any(root.iterdir())):
        raise IONError(
            f"{root} holds something other than synthetic scenes; give an empty or a new folder"
        )
    for path in _files(root):
        if not _OWN.fullmatch(path.name):
            raise IONError(
                f"{path} is none of the synthetic scenes, which would be written anew here; move "
                "it, or give another folder"
            )
    root.mkdir(parents=True, exist_ok=True)
    unfinished = root / _UNFINISHED
    unfinished.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    (root / _MANIFEST).unlink(missing_ok=True)
    for folder in _FOLDERS:
        if (root / folder).exists():
            shutil.rmtree(root / folder)
        (root / folder).mkdir()
    return True


def _is_whole(root: Path, manifest: dict[str, Any]) -> bool:
    """Whether no file has been deleted since the set was finished."""
    total = sum(manifest["arguments"][split] for split in SPLITS)
    wanted = len(PICTURE_FOLDERS) * total + len(SPLITS) * len(SPLIT_FOLDERS)
    own = sum(_OWN.fullmatch(path.name) is not None for path in _files(root))
    return own == wanted and (root / "classes.txt").is_file()


def _files(root: Path) -> Iterator[Path]:
    """All files in the folders of a set."""
    for folder in _FOLDERS:
        yield from (path for path in (root / folder).rglob("*") if not path.is_dir())


def _read_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest, or None if the file is missing or is none of ours."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return content if isinstance(content, dict) and content.get("kind") == _KIND else None


def _write_set(root: Path, settings: SceneSettings, counts: dict[str, int]) -> None:
    for split, count in counts.items():
        names = [f"{split}_{index:06d}" for index in range(count)]
        for index, name in enumerate(names):
            write_scene(root, name, compose_scene(settings, split, index))
        write_split(root, split, names)
        logger.info("Wrote %d scenes of split %s into %s", count, split, root)
    classes = "".join(f"{name}\n" for name in settings.classes)
    (root / "classes.txt").write_text(classes, encoding="ascii")
    os.replace(root / _UNFINISHED, root / _MANIFEST)
