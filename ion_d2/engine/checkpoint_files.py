"""Reading and writing checkpoint files: one-sentence errors, and older files stay intact."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import IO, Any

import numpy as np
import torch
from torch import nn

from ..data.plain_pickle import load_plain_pickle
from ..errors import IONError
from ..files import replace_file, write_result
from .distributed import is_lost_worker

SAFETENSORS = ".safetensors"
KEY = "class_names"  # of a checkpoint, beside "model", with the names by class id


def write_atomically(path: str, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file by :func:`~ion_d2.files.replace_file`; ``IONError`` if it cannot be written."""
    try:
        replace_file(path, write)
    except (OSError, RuntimeError) as error:
        # PyTorch's writer raises a RuntimeError of its own over the system's error, a Ctrl-C or the
        # loss of a process that loads pictures.
        causes: list[BaseException] = [error]
        while cause := causes[-1].__cause__ or causes[-1].__context__:
            causes.append(cause)
        if any(isinstance(cause, KeyboardInterrupt) for cause in causes):
            raise KeyboardInterrupt from error
        if lost := next(filter(is_lost_worker, causes), None):
            raise lost from None
        reason = next((str(c.strerror or c) for c in causes if isinstance(c, OSError)), None)
        if reason is None:
            raise
        folder = os.path.dirname(path) or os.curdir
        if not os.path.isdir(folder):
            raise folder_gone(folder) from error
        raise IONError(
            f"{path} could not be written ({reason}); what was saved before in {folder} is intact: "
            "free space there or choose another OUTPUT_DIR, then go on with --resume."
        ) from error


def folder_gone(folder: str) -> IONError:
    """The error for an ``OUTPUT_DIR`` that was removed, or unmounted, while a run wrote to it."""
    return IONError(
        f"The folder {folder} is gone, which was there before: bring it back with what was in it, "
        "then go on with --resume, or start anew."
    )


@contextlib.contextmanager
def reading(path: str) -> Iterator[None]:
    """Turn any failure inside the ``with`` block into an ``IONError`` that names the checkpoint.

    NumPy arrays and scalars, which Detectron2's training state may hold, are admitted beside
    tensors where ``torch.load`` restricts what a file may contain.
    """
    try:
        with _numpy_admitted():
            yield
    except IONError:
        raise
    except Exception as error:  # whatever a damaged pickle or zip archive leads its reader to raise
        raise IONError(f"{path} {_read_failure(path, error)}") from error


def _read_failure(path: str, error: Exception) -> str:
    if isinstance(error, PermissionError):
        return "may not be read; change its permissions."
    if isinstance(error, (FileNotFoundError, IsADirectoryError)):
        return f"is no file ({error.strerror}); give the path of a checkpoint."
    named = isinstance(error, pickle.UnpicklingError) and "it holds a" in str(error)
    if named or (_is_zip(path) and "weights_only" in str(error)):
        return (
            "holds Python objects besides tensors, NumPy arrays and plain values, which may run "
            "code; save its state dict alone, from a program that trusts the file."
        )
    return (
        f"is not a readable checkpoint ({type(error).__name__}): it is empty, cut short or of "
        "another kind; fetch or save it again (delete a download that broke off first)."
    )


def _numpy_admitted() -> contextlib.AbstractContextManager[Any]:
    if not hasattr(torch.serialization, "safe_globals"):  # such a torch.load does not restrict
        return contextlib.nullcontext()
    scalar: Any = np.float64(0).__reduce__()[0]
    array: Any = np.empty(0).__reduce__()[0]
    dtypes = {type(np.dtype(code)) for code in "?bBhHiIlLqQefd"}
    # The module of these two functions has another name in files written under NumPy 1.
    names = [f"numpy.{core}.multiarray." for core in ("core", "_core")]
    if not hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint"):
        # PyTorch 2.5 takes no names beside them; it knows those of the NumPy at hand alone.
        return torch.serialization.safe_globals([np.ndarray, np.dtype, *dtypes, scalar, array])
    functions = [(scalar, name + "scalar") for name in names]
    functions += [(array, name + "_reconstruct") for name in names]
    return torch.serialization.safe_globals([np.ndarray, np.dtype, *dtypes, *functions])


def load_lazily(path: str) -> Any:
    """Load a checkpoint, its tensors only once they are used if possible; see :func:`reading`."""
    options: dict[str, Any] = {}
    with reading(path):
        if path.endswith(SAFETENSORS):
            return _read_safetensors(path)
        if _is_zip(path):
            _check_archive(path)
            # PyTorch 2.0 has no such option, and it is for files in PyTorch's zip format alone.
            options = {"mmap": True} if "mmap" in inspect.signature(torch.load).parameters else {}
        elif tarfile.is_tarfile(path):  # which PyTorch unpacks
            raise IONError(
                f"{path} is an archive of the first releases of PyTorch, which may run code; save "
                "its state dict anew, from a program that trusts the file."
            )
        return torch.load(path, map_location="cpu", weights_only=True, **options)


def refuse_code(path: str) -> None:
    """Raise ``IONError`` for a checkpoint that holds more than tensors, arrays and plain values.

    Detectron2 reads some kinds of files, and PyTorch before 2.6 all, by running what they name.
    """
    if not path.endswith(".pkl"):
        load_lazily(path)
        return
    with reading(path):
        load_plain_pickle(path)


def _is_zip(path: str) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # of several disks
        return False


def _check_archive(path: str) -> None:
    """PyTorch packs nothing, so that an archive of packed or overlapping files is no checkpoint."""
    with zipfile.ZipFile(path) as archive:
        sizes = sum(entry.file_size for entry in archive.infolist())
    if sizes > os.path.getsize(path):
        raise IONError(
            f"{path} would unpack to {sizes / 1e6:,.0f} MB, more than the file has; a checkpoint "
            "is never compressed: fetch it again."
        )


def check_state(state: Any, filename: str) -> None:
    """Raise ``IONError`` for what is no dict of tensors or NumPy arrays by name."""
    faults = [("", state)]
    if isinstance(state, dict):
        faults = [
            (f" under {key!r}", value)
            for key, value in state.items()
            if not isinstance(key, str) or not isinstance(value, (torch.Tensor, np.ndarray))
        ]
    for place, value in faults[:1]:
        raise IONError(
            f"{filename} holds a {type(value).__name__}{place} where a dict of tensors (a state "
            "dict) is expected; save model.state_dict() instead."
        )


def _read_safetensors(path: str) -> dict[str, Any]:
    """What a checkpoint holds: under "model" the weights, and, if they are there, class names."""
    with _package("safetensors").safe_open(path, framework="pt") as file:
        names = (file.metadata() or {}).get(KEY)
        content = {"model": {key: file.get_tensor(key) for key in file.keys()}}
    return content if names is None else {**content, KEY: json.loads(names)}


def write_safetensors(path: str, model: nn.Module, class_names: Sequence[str]) -> None:
    """Write a model's weights and the names of its classes in a format without code.

    Raises:
        IONError: the package safetensors is missing, or the file cannot be written.
    """
    tensors = {key: value.contiguous() for key, value in model.state_dict().items()}
    names = {"format": "pt", KEY: json.dumps(list(class_names))}
    content = _package("safetensors.torch").save(tensors, names)
    write_result(path, lambda file: file.write(content), "choose another place for it")


def _package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise IONError(
            f"Files {SAFETENSORS} need the package safetensors, which cannot be imported "
            f"({error}); install it with `pip install safetensors`."
        ) from error
