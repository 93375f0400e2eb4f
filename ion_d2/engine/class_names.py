"""The names of a model's classes, which travel with its checkpoints."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from http.client import HTTPException
from typing import Any

import torch
from detectron2.data import MetadataCatalog
from detectron2.utils.file_io import PathManager
from torch import nn

from ..errors import IONError
from .checkpoint_files import reading
from .steps import unwrap_distributed

# Under this name a checkpoint holds them beside "model": a list of str, by class id.
KEY = "class_names"
_ATTRIBUTE = "trained_class_names"
_FOREIGN = (".pkl", ".pyth")  # files of other programs, which Detectron2 converts
_SHOWN = 5  # names in a message


def name_classes(model: nn.Module, names: Sequence[str] | None) -> None:
    """Let a model know its classes, which its checkpoints then tell.

    Args:
        model: the model; it may be wrapped for distributed training.
        names: by class id; None where they are not known.
    """
    setattr(unwrap_distributed(model), _ATTRIBUTE, None if names is None else _normal(names))


def classes_of(model: nn.Module) -> list[str] | None:
    """Tell the classes of a model.

    Args:
        model: as in :func:`name_classes`.

    Returns:
        The names by class id; None where nobody has told them.
    """
    return getattr(unwrap_distributed(model), _ATTRIBUTE, None)


def dataset_classes(datasets: Sequence[str]) -> list[str] | None:
    """Tell the classes of registered datasets, as far as the catalog knows them.

    Args:
        datasets: names of datasets whose classes are equal.

    Returns:
        The names by class id; None without a dataset, or where it has no ``thing_classes``.
    """
    names = MetadataCatalog.get(datasets[0]).get("thing_classes") if datasets else None
    return None if names is None else list(names)


def names_in(checkpoint: Any) -> list[str] | None:
    """Take the class names out of what a checkpoint holds.

    Args:
        checkpoint: the content of the file.

    Returns:
        The names by class id; None where it has none, or something else under their key.
    """
    names = checkpoint.get(KEY) if isinstance(checkpoint, dict) else None
    known = isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names)
    return _normal(names) if known and names else None


def read_class_names(weights: str) -> list[str] | None:
    """Read the class names of a checkpoint, without a model.

    Args:
        weights: a file or URL.

    Returns:
        The names by class id; None where it tells none, or where there is no such file, which
        loading it will tell.

    Raises:
        IONError: it cannot be read.
    """
    if not weights or weights.endswith(_FOREIGN):
        return None
    try:
        path = PathManager.get_local_path(weights)
    except (OSError, HTTPException, ValueError):
        return None
    if not os.path.isfile(path):
        return None
    with reading(path):
        return names_in(torch.load(path, map_location="cpu"))


def difference(theirs: Sequence[str], ours: Sequence[str]) -> str:
    """Say how the classes of a checkpoint differ from those at hand.

    Args:
        theirs: of the checkpoint, by class id.
        ours: those at hand, by class id.

    Returns:
        A part of a sentence that names them; "" where they are equal, in whichever Unicode form.
    """
    theirs, ours = _normal(theirs), _normal(ours)
    if theirs == ours:
        return ""
    gone = [name for name in theirs if name not in ours]
    new = [name for name in ours if name not in theirs]
    if not gone and not new and len(theirs) == len(ours):
        place = next(i for i, name in enumerate(theirs) if name != ours[i])
        return (
            f"another order of classes: class {place} is {theirs[place]!r} in it, and "
            f"{ours[place]!r} here"
        )
    parts = [f"without {listed(new)}"] if new else []
    parts += [f"with {listed(gone)}, which the data here does not have"] if gone else []
    return ", ".join([f"other classes ({listed(theirs)})", " and ".join(parts)])


def check_classes(theirs: Sequence[str] | None, ours: Sequence[str] | None, source: str) -> None:
    """Refuse to use a trained model for other classes than its own.

    Args:
        theirs: of the model, by class id; None where they are not known.
        ours: of the data, by class id; None where they are not known.
        source: the model, as the user knows it.

    Raises:
        IONError: they differ; the message names them.
    """
    differs = difference(theirs, ours) if theirs and ours else ""
    if differs:
        raise IONError(
            f"{source} was trained on {differs}; give the data the model's classes in the model's "
            "order (classes.txt of a folder in VOC layout, categories of a COCO file), or start a "
            "new training for these classes from it (MODEL.WEIGHTS, without --resume)."
        )


def _normal(names: Sequence[str]) -> list[str]:
    return [unicodedata.normalize("NFC", name) for name in names]


def listed(names: Sequence[str]) -> str:
    """Name the first few of some classes, for a message.

    Args:
        names: the classes.

    Returns:
        Their names in quotes, and their number where there are more.
    """
    more = f", ... ({len(names)} in all)" if len(names) > _SHOWN else ""
    return ", ".join(map(repr, names[:_SHOWN])) + more
