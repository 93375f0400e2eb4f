"""Reading of Matlab's files."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
from scipy.io import loadmat

from ion_d2.errors import IONError

_HEADER = 128  # bytes, of which the last four tell version and byte order
_MATRIX, _PACKED = 14, 15  # types of elements
_WITH_PARTS = (
    1,
    2,
    3,
    16,
    17,
)  # classes of matrices: cells, structures, objects, functions, opaque
_MOST_WITH_PARTS = 500
# Bytes that a file may unpack to, at least and in relation to its own.
_UNPACKED, _RATIO = 64 << 20, 100


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
    """Refuse what would fill the memory, or the stack: scipy reads cells in cells by recursion."""
    with open(path, "rb") as file:
        content = file.read()
    major = content[124 + (content[126:127] == b"I") : _HEADER][:1]
    if 0 in content[:4] or major != b"\1":  # of another version, whose arrays are not nested
        return
    order = "<" if content[126:_HEADER] == b"IM" else ">"
    nested, places = 0, set()
    left = max(_UNPACKED, _RATIO * len(content))
    start = _HEADER
    while start + 8 <= len(content):
        kind, size = struct.unpack_from(f"{order}II", content, start)
        if kind == _PACKED:
            unpacker = zlib.decompressobj()
            unpacked = unpacker.decompress(content[start + 8 : start + 8 + size], max(left, 1))
            left -= len(unpacked)
            if unpacker.unconsumed_tail:
                raise ValueError(f"it would unpack to more than {_RATIO} times its size")
            nested += _count_with_parts(unpacked, order)
        else:
            places.add(start % 8)
        start += 8 + size
    nested += sum(_count_with_parts(memoryview(content)[place:], order) for place in places)
    if nested > _MOST_WITH_PARTS:
        raise ValueError(f"it has more than {_MOST_WITH_PARTS} cell arrays and structures")


def _count_with_parts(content: bytes | memoryview, order: str) -> int:
    """Count the headers of matrices of matrices; all elements start at multiples of 8 bytes."""
    words = np.frombuffer(content, f"{order}u4", len(content) // 8 * 2)[::2]
    place = np.flatnonzero(words[:-3] == _MATRIX)
    kinds, sizes = words[place + 2] & 0xFF, words[place + 3] & 0xFFFF  # the latter: of integers
    return int((np.isin(kinds, _WITH_PARTS) & np.isin(sizes, (5, 6))).sum())
