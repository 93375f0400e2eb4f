"""The text file that names the classes of a dataset or a model."""

from __future__ import annotations

from ion_d2.data.folders import read_lines
from ion_d2.errors import IONError


def read_class_file(path: str) -> list[str]:
    """Read the names of classes, one a line.

    Args:
        path: the file; blank lines, lines starting with ``#`` and a leading ``background`` do not
            count.

    Returns:
        The names in the order of the class ids.

    Raises:
        IONError: it cannot be read, names no class, or one twice.
    """
    names = [line for line in read_lines(path) if not line.startswith("#")]
    if names and names[0] in ("background", "__background__"):
        names = names[1:]
    if not names:
        raise IONError(f"{path} names no class; write one class name a line into it.")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise IONError(f"{path} names {', '.join(repeated)} more than once; keep one line of each.")
    return names
