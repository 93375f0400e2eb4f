"""Pickles of plain values and NumPy arrays, read without running what they name.

The module ``pickle`` calls whatever a file asks for. Here, a file may ask for NumPy's arrays and
numbers and for ordered dicts, and fill these; it reaches no other object.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterable
from importlib import import_module
from typing import IO, Any, ClassVar

import numpy as np

# The modules of NumPy's functions, under NumPy 1 and 2.
_CORES = ("numpy.core", "numpy._core")


def load_plain_pickle(path: str | os.PathLike[str]) -> Any:
    """Read a pickle of dicts, lists, text, numbers and NumPy arrays, also of Python 2.

    Raises:
        OSError: it cannot be opened.
        Exception: of any kind, for what is damaged; ``pickle.UnpicklingError`` for other objects.
    """
    with open(path, "rb") as file:
        return _Unpickler(file).load()


def _empty_array(*_: Any) -> np.ndarray:
    """An array before its content, whatever size the file states: the content brings its own."""
    return np.empty(0, np.int8)


def _dtype(code: Any, *_: Any) -> np.dtype:
    """A number type of its own, so that what the file sets in it is no one else's."""
    if not isinstance(code, str) or len(code) > 16:
        raise pickle.UnpicklingError(f"it holds an array of {code!r}")
    return np.dtype(code, copy=True)


def _check_dtype(dtype: np.dtype, state: Any) -> None:
    """Refuse a state that makes another kind of it: NumPy believes sizes and flags."""
    _, order, *parts, size, alignment, flags = state
    of_any_size = dtype.kind in "SU" and isinstance(size, int) and 0 < size < 1 << 20
    if (
        order not in ("<", ">", "|", "=")
        or parts != [None] * 3
        or not (of_any_size or size == -1)
        or alignment not in (-1, dtype.alignment)
        or flags != dtype.flags
    ):
        raise pickle.UnpicklingError(f"it holds an array of {dtype} with {state!r:.60}")


def _encode(text: str, encoding: str = "") -> bytes:
    """Bytes that Python 3 wrote for Python 2."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"it holds text to encode as {encoding!r}")
    return text.encode("latin1")


def _dict(pairs: Any = ()) -> dict[Any, Any]:
    """An ordered dict, of pairs as Python 2 wrote it."""
    _check_keys(key for key, _ in pairs)
    return dict(pairs)


def _check_keys(keys: Iterable[Any]) -> None:
    """Refuse keys that are neither text nor numbers: hashing deep tuples overflows the stack."""
    for key in keys:
        if not isinstance(key, (str, bytes, int, float)):
            raise pickle.UnpicklingError(f"it has a {type(key).__name__} as a key")


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): "numpy.ndarray",  # only ever an argument
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): _dict,
    ("detectron2.structures.boxes", "BoxMode"): int,
    **{(f"{core}.multiarray", "_reconstruct"): _empty_array for core in _CORES},
}
_OF_NUMPY = {("multiarray", "scalar"), ("numeric", "_frombuffer")}
_SETS = (pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET)


# Python's own reader, because the one in C reserves whatever sizes a file states.
class _Unpickler(pickle._Unpickler):
    """Finds stand-ins for what a file may name, and lets it set up arrays alone."""

    stack: list[Any]
    metastack: list[list[Any]]

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="latin1")  # which arrays of Python 2 need

    def find_class(self, module: str, name: str) -> Any:
        core, _, part = module.rpartition(".")
        if core in _CORES and (part, name) in _OF_NUMPY:
            installed = np.empty(0).__reduce__()[0].__module__.rpartition(".")[0]
            return getattr(import_module(f"{installed}.{part}"), name)
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"it holds a {module}.{name}")
        return _STAND_INS[module, name]

    def _build(self) -> None:
        if not isinstance(self.stack[-2], (np.ndarray, np.dtype)):
            raise pickle.UnpicklingError(f"it holds a set-up {type(self.stack[-2]).__name__}")
        if isinstance(self.stack[-2], np.dtype):
            _check_dtype(self.stack[-2], self.stack[-1])
        super().load_build()  # type: ignore[misc]
        if not self.stack[-1].itemsize:  # of which an array of any length takes no byte
            raise pickle.UnpicklingError("it holds an array of nothing")

    def _set_item(self) -> None:
        _check_keys(self.stack[-2:-1])
        super().load_setitem()  # type: ignore[misc]

    def _set_items(self) -> None:
        _check_keys(self.stack[::2])  # of the pairs since the last mark
        super().load_setitems()  # type: ignore[misc]

    def _new_dict(self) -> None:
        _check_keys(self.stack[::2])
        super().load_dict()  # type: ignore[misc]

    dispatch: ClassVar[dict[int, Any]] = {
        **{k: v for k, v in pickle._Unpickler.dispatch.items() if bytes([k]) not in _SETS},
        pickle.BUILD[0]: _build,
        pickle.SETITEM[0]: _set_item,
        pickle.SETITEMS[0]: _set_items,
        pickle.DICT[0]: _new_dict,
    }
