"""Reading and writing checkpoint files: failures are told clearly and leave older files intact."""

from __future__ import annotations

import contextlib
import os
import zipfile
from collections.abc import Callable, Iterator
from typing import IO, Any

import numpy as np
import torch

from ..errors import IONError
from ..files import replace_file


def write_atomically(path: str, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a checkpoint's file with :func:`replace_file`, and tell failures in one sentence.

    Args:
        path: the file to create or replace, in an existing folder.
        write: writes the content to the binary file that it is given.

    Raises:
        IONError: the disk is full or the file cannot be written; the temporary file is removed.
    """
    try:
        replace_file(path, write)
    except (OSError, RuntimeError) as error:
        # PyTorch's writer raises a RuntimeError of its own over the system's error or a Ctrl-C.
        causes = list(_causes(error))
        if any(isinstance(cause, KeyboardInterrupt) for cause in causes):
            raise KeyboardInterrupt from error
        reason = next((str(c.strerror or c) for c in causes if isinstance(c, OSError)), None)
        if reason is None:
            raise
        raise IONError(
            f"{path} could not be written ({reason}); what was saved earlier in "
            f"{os.path.dirname(path) or os.curdir} is intact: free space there or choose another "
            "OUTPUT_DIR, then go on with --resume."
        ) from error


@contextlib.contextmanager
def reading(path: str) -> Iterator[None]:
    """Tell failures to read a checkpoint, inside the ``with`` block, in one sentence.

    NumPy arrays and scalars, which Detectron2's training state may hold, are admitted beside
    tensors where ``torch.load`` restricts what a file may contain.

    Args:
        path: the checkpoint, to be named.

    Raises:
        IONError: anything failed inside the block.
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
    if zipfile.is_zipfile(path) and "weights_only" in str(error):
        return (
            "holds Python objects besides tensors, NumPy arrays and plain values, which may run "
            "code and so are not loaded; save its state dict alone, from a program that trusts "
            "the file."
        )
    return (
        f"is not a readable checkpoint ({type(error).__name__}): it is empty, cut short or of "
        "another kind; fetch or save it again (a download that broke off must be deleted first)."
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Follow an error back to the ones that it was raised from or over, itself first."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _numpy_admitted() -> contextlib.AbstractContextManager[Any]:
    if not hasattr(torch.serialization, "safe_globals"):  # such a torch.load does not restrict
        return contextlib.nullcontext()
    scalar: Any = np.float64(0).__reduce__()[0]
    array: Any = np.empty(0).__reduce__()[0]
    dtypes = {type(np.dtype(code)) for code in "?bBhHiIlLqQefd"}
    # The module of these two functions has another name in files written under NumPy 1.
    names = [f"numpy.{core}.multiarray." for core in ("core", "_core")]
    functions = [(scalar, name + "scalar") for name in names]
    functions += [(array, name + "_reconstruct") for name in names]
    return torch.serialization.safe_globals([np.ndarray, np.dtype, *dtypes, *functions])
