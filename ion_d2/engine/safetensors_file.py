"""Weights as safetensors, a format without code, with the names of the classes."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from torch import nn

from ..errors import IONError
from ..files import write_result

SUFFIX = ".safetensors"
_KEY = "class_names"


def read_safetensors(path: str) -> dict[str, Any]:
    """The content of a file as that of a checkpoint: "model" and, where it has them, class names.

    Raises:
        IONError: the package safetensors is missing.
        Exception: of any kind, for a damaged file.
    """
    with _package("safetensors").safe_open(path, framework="pt") as file:
        names = (file.metadata() or {}).get(_KEY)
        content = {"model": {key: file.get_tensor(key) for key in file.keys()}}
    return content if names is None else {**content, _KEY: json.loads(names)}


def write_safetensors(path: str, model: nn.Module, class_names: Sequence[str]) -> None:
    """Write a model's weights and the names of its classes.

    Raises:
        IONError: the package safetensors is missing, or the file cannot be written.
    """
    tensors = {key: value.contiguous() for key, value in model.state_dict().items()}
    names = {"format": "pt", _KEY: json.dumps(list(class_names))}
    content = _package("safetensors.torch").save(tensors, names)
    write_result(path, lambda file: file.write(content), "choose another place for it")


def _package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise IONError(
            f"Files {SUFFIX} need the package safetensors, which cannot be imported ({error}); "
            "install it with `pip install safetensors`."
        ) from error
