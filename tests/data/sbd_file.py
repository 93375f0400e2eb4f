"""Writes files as SBD's folder cls holds them."""

from __future__ import annotations

import numpy as np
from scipy.io import savemat
from scipy.sparse import csc_matrix


def write_sbd(path, ids, compress=True):
    """GTcls with its three fields: a boundary map a class, the ids, and the classes that occur."""
    ids = np.asarray(ids, dtype=np.uint8)
    boundaries = np.empty((20, 1), dtype=object)
    for index in range(20):
        boundaries[index, 0] = csc_matrix((ids == index + 1).astype(float))
    present = np.setdiff1d(np.unique(ids), [0, 255]).astype(np.uint8)[:, None]
    content = {"Boundaries": boundaries, "Segmentation": ids, "CategoriesPresent": present}
    savemat(path, {"GTcls": content}, do_compression=compress)
    return path
