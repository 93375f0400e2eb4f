"""Reading of Matlab's files."""

from __future__ import annotations

from typing import Any

from scipy.io import loadmat

from ion_d2.errors import IONError


def load_mat(path: str) -> dict[str, Any]:
    """Read the variables of a Matlab file.

    Raises:
        IONError: it is missing, damaged or in Matlab's format 7.3.
    """
    try:
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
