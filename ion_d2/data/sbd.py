"""Class labels of the Semantic Boundaries Dataset (SBD, Hariharan et al., ICCV 2011).

Its folder ``cls`` holds a Matlab file per image: a structure ``GTcls`` whose field
``Segmentation`` is an array of class ids, 0 the background and 1..20 VOC's classes, without void.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from ion_d2.errors import IONError

_STRUCTURE, _FIELD = "GTcls", "Segmentation"
# scipy's reader reports damage in all these ways; NotImplementedError is Matlab's HDF5 format.
_READ_ERRORS = (
    MatReadError, OSError, ValueError, TypeError, LookupError, EOFError, OverflowError, MemoryError,
    NotImplementedError, struct.error, zlib.error,
)  # fmt: skip


def read_sbd_label(path: str) -> np.ndarray:
    """Read a ``.mat`` file of SBD's folder ``cls`` as an (H, W) uint8 array of class ids.

    Raises:
        IONError: the file cannot be read, is of another layout, or its ids are not 0..255.
    """
    try:
        content = loadmat(path, appendmat=False)
    except _READ_ERRORS as error:
        raise IONError(
            f"Label {path} cannot be read as a Matlab file ({error}); replace or remove it."
        ) from error
    labels = _segmentation(content)
    if labels is None:
        keys = ", ".join(sorted(key for key in content if not key.startswith("__"))) or "nothing"
        raise IONError(
            f"Label {path} has no array {_STRUCTURE}.{_FIELD}, but holds {keys}; SBD's files of "
            "class ids are those in its folder cls."
        )
    if labels.size and not (labels.min() >= 0 and labels.max() <= 255):
        raise IONError(f"Label {path} holds ids outside 0..255; replace or remove it.")
    return labels.astype(np.uint8)


def _segmentation(content: dict[str, Any]) -> np.ndarray | None:
    """The 2-D numeric array in GTcls.Segmentation, if there is one."""
    structure: Any = content.get(_STRUCTURE)
    names = getattr(getattr(structure, "dtype", None), "names", None) or ()
    if _FIELD not in names or structure.size != 1:
        return None
    labels = structure[_FIELD].item()
    # Matlab may have kept the ids as integers or as its usual doubles.
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "uif" or labels.ndim != 2:
        return None
    return labels
