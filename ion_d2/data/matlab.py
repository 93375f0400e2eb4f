"""Reading of Matlab's files."""

from __future__ import annotations

import math
import struct
import zlib
from typing import Any

import numpy as np
from scipy.io import loadmat

from ..errors import IONError

_HEADER = 128  # bytes, of which the last four tell version and byte order
# Types of elements, and classes of matrices.
_MATRIX, _PACKED = 14, 15
_NUMBERS = {1, 2, 3, 4, 5, 6, 7, 9, 12, 13, 16, 17, 18}
_CELLS, _STRUCTURE, _SPARSE = 1, 2, 5
_CLASSES = range(1, 16)
_COMPLEX = 1 << 11
_MOST_NESTED = 50
# Bytes that a file may unpack to, at least and in relation to its own.
_UNPACKED, _RATIO = 64 << 20, 100
# The type of an element, and where its content starts and ends.
_Element = tuple[int, int, int]


def load_mat(path: str) -> dict[str, Any]:
    """Read the variables of a Matlab file.

    Raises:
        IONError: it is missing, damaged or in Matlab's format 7.3.
    """
    try:
        _check(path)
        content = loadmat(path, appendmat=False)
    except NotImplementedError as error:
        raise IONError(
            f"{path} is in Matlab's format 7.3 (HDF5), which is not read here; in Matlab, load it "
            "and save it again with the option '-v7'."
        ) from error
    except Exception as error:  # whatever a damaged file leads scipy to raise
        raise IONError(
            f"{path} cannot be read as a Matlab file ({error}); fetch or make it again."
        ) from error
    return {name: value for name, value in content.items() if not name.startswith("__")}


def _check(path: str) -> None:
    """Refuse what fills the memory or crashes scipy's reader, which believes what a file states."""
    with open(path, "rb") as file:
        content = file.read()
    major = content[124 + (content[126:127] == b"I") : _HEADER][:1]
    if 0 in content[:4] or major != b"\1":  # of another version, whose arrays are not nested
        return
    order = "<" if content[126:_HEADER] == b"IM" else ">"
    left = max(_UNPACKED, _RATIO * len(content))
    for kind, start, end in _elements(content, _HEADER, len(content), order):
        if kind == _PACKED:
            unpacker = zlib.decompressobj()
            unpacked = unpacker.decompress(content[start:end], max(left, 1))
            left -= len(unpacked)
            if unpacker.unconsumed_tail:
                raise ValueError(f"it would unpack to more than {_RATIO} times its size")
            for inside in _elements(unpacked, 0, len(unpacked), order):
                _check_matrix(unpacked, inside, order)
        else:
            _check_matrix(content, (kind, start, end), order)


def _check_matrix(content: bytes, matrix: _Element, order: str) -> None:
    """Look whether a matrix has the parts that its head states, and these likewise."""
    waiting = [(matrix, 1)]
    while waiting:
        (kind, start, end), depth = waiting.pop()
        if kind != _MATRIX or depth > _MOST_NESTED:
            raise ValueError("it has no matrix where one is expected, or cells too deep in cells")
        if start == end:
            continue
        head, sizes, _, *parts = _elements(content, start, end, order)
        if head != (6, start + 8, start + 16) or sizes[0] not in (5, 6):
            raise ValueError("a matrix has no head")
        flags = struct.unpack_from(f"{order}I", content, head[1])[0]
        count = math.prod(_integers(content, sizes, order))
        wanted = _wanted(flags, count)
        if flags & 0xFF == _STRUCTURE:
            length, names, *parts = parts
            wanted *= (names[2] - names[1]) // _integers(content, length, order)[0]
        nested = flags & 0xFF in (_CELLS, _STRUCTURE)
        if len(parts) != wanted or not (nested or {part[0] for part in parts} <= _NUMBERS):
            raise ValueError(f"a matrix has {len(parts)} parts, or parts of another type")
        waiting += [(part, depth + 1) for part in parts] if nested else []


def _wanted(flags: int, count: int) -> int:
    """The parts of a matrix, or of a structure for each of its fields."""
    kind, is_complex = flags & 0xFF, bool(flags & _COMPLEX)
    if kind not in _CLASSES or kind == 3:
        raise ValueError("it holds an object of Matlab's, not numbers, text, cells or structures")
    if kind in (_CELLS, _STRUCTURE):
        return count
    return (3 if kind == _SPARSE else 1) + is_complex


def _integers(content: bytes, element: _Element, order: str) -> list[int]:
    _, start, end = element
    return np.frombuffer(content[start:end], f"{order}i4").tolist()


def _elements(content: bytes, start: int, end: int, order: str) -> list[_Element]:
    """The elements between two places, which have to hold nothing else."""
    found = []
    while start < end:
        kind, size = struct.unpack_from(f"{order}II", content, start)
        inside, following = start + 8, start + 8 + size
        if kind >> 16:  # a short one, within 8 bytes
            kind, size, inside, following = kind & 0xFFFF, kind >> 16, start + 4, start + 8
        elif kind != _PACKED:
            following += -size % 8
        if inside + size > end or inside + size > following:
            raise ValueError("it breaks off, or an element reaches beyond the one around it")
        found.append((kind, inside, inside + size))
        start = following
    return found
