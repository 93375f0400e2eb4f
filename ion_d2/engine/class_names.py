"""The names of a model's classes, which its checkpoints carry along."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from http.client import HTTPException
from typing import Any

from detectron2.data import MetadataCatalog
from detectron2.utils.file_io import PathManager
from torch import nn

from ..errors import IONError
from .checkpoint_files import KEY, load_lazily
from .steps import unwrap_distributed

_ATTRIBUTE = "trained_class_names"
_SHOWN = 5  # names in a message


def name_classes(model: nn.Module, names: Sequence[str] | None) -> None:
    """Attach class names, by id, to a model, wrapped or not; None where they are not known."""
    setattr(unwrap_distributed(model), _ATTRIBUTE, None if names is None else _normal(names))


def classes_of(model: nn.Module) -> list[str] | None:
    """The class names that :func:`name_classes` attached."""
    return getattr(unwrap_distributed(model), _ATTRIBUTE, None)


def dataset_classes(datasets: Sequence[str]) -> list[str] | None:
    """The class names of registered datasets with equal classes; None where nothing tells them."""
    names = MetadataCatalog.get(datasets[0]).get("thing_classes") if datasets else None
    return None if names is None else list(names)


def names_in(checkpoint: Any) -> list[str] | None:
    """The class names in the content of a checkpoint; None where it has none."""
    names = checkpoint.get(KEY) if isinstance(checkpoint, dict) else None
    known = isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names)
    return _normal(names) if known and names else None


def read_class_names(weights: str) -> list[str] | None:
    """Read the class names of a checkpoint, by id, without a model and without its tensors.

    None where it has none, or where there is no such file, which is an error only when the weights
    are loaded. ``IONError`` if it cannot be read.
    """
    if not weights or weights.endswith((".pkl", ".pyth")):  # which Detectron2 converts
        return None
    try:
        path = PathManager.get_local_path(weights)
    except (OSError, HTTPException, ValueError):
        return None
    return names_in(load_lazily(path)) if os.path.isfile(path) else None


def difference(theirs: Sequence[str] | None, ours: Sequence[str] | None) -> str:
    """Say how the classes of a checkpoint, by id, differ from those at hand: a part of a sentence.

    It is "" where they are equal, in whichever Unicode form, or where one of the two is unknown.
    """
    theirs, ours = _normal(theirs or ()), _normal(ours or ())
    if theirs == ours or not theirs or not ours:
        return ""
    gone = [name for name in theirs if name not in ours]
    new = [name for name in ours if name not in theirs]
    if not gone and not new and len(theirs) == len(ours):
        i, its, own = next((i, a, b) for i, (a, b) in enumerate(zip(theirs, ours)) if a != b)
        return f"another order of classes: class {i} is {its!r} in it, and {own!r} here"
    parts = [f"without {listed(new)}"] if new else []
    parts += [f"with {listed(gone)}, which the data here does not have"] if gone else []
    return f"other classes ({listed(theirs)}), {' and '.join(parts)}"


def check_classes(theirs: Sequence[str] | None, ours: Sequence[str] | None, source: str) -> None:
    """Raise ``IONError`` if a trained model, ``source``, has other classes than the data, ours."""
    if differs := difference(theirs, ours):
        raise IONError(
            f"{source} was trained on {differs}; give the data the model's classes in its order "
            "(classes.txt, or categories of a COCO file), or start a new training of these "
            "classes from it (MODEL.WEIGHTS, without --resume)."
        )


def _normal(names: Sequence[str]) -> list[str]:
    return [unicodedata.normalize("NFC", name) for name in names]


def listed(names: Sequence[str]) -> str:
    """The first few class names in quotes, and how many there are."""
    more = f", ... ({len(names)} in all)" if len(names) > _SHOWN else ""
    return ", ".join(map(repr, names[:_SHOWN])) + more
