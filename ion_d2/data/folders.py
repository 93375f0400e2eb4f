"""Listing folders and reading short text files of a dataset, with clear errors."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Sequence

from ion_d2.errors import IONError


def index_folder(folder: str, extensions: Sequence[str]) -> dict[str, str]:
    """Find the files with given extensions in a folder and its subfolders, listing each once.

    Args:
        folder: the folder.
        extensions: with dot and in lower case (files may have any case); where a stem has several
            files, the earlier extension wins. Hidden files do not count.

    Returns:
        Path by file name without extension ("a/im0" for a file in the subfolder "a"), in Unicode's
        composed form (some systems store "ü" as "u" and a mark, some as one sign).

    Raises:
        IONError: the folder is missing or cannot be read.
    """
    found: dict[str, tuple[int, str]] = {}
    for path in _visible_files(folder):
        stem, extension = os.path.splitext(os.path.relpath(path, folder))
        stem = composed(stem).replace(os.sep, "/")
        if extension.lower() not in extensions:
            continue
        rank = extensions.index(extension.lower())
        if stem not in found or rank < found[stem][0]:
            found[stem] = (rank, path)
    return {stem: path for stem, (_, path) in found.items()}


def _visible_files(folder: str) -> Iterator[str]:
    """The paths of a folder's files, then of those in its subfolders, without hidden ones."""
    list_folder(folder)  # raises what os.walk keeps to itself
    for place, subfolders, file_names in os.walk(folder, followlinks=True):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(file_names):
            if not name.startswith("."):
                yield os.path.join(place, name)


def composed(name: str) -> str:
    """A name in Unicode's composed form (NFC), by which :func:`index_folder` knows files."""
    return unicodedata.normalize("NFC", name)


def list_folder(folder: str) -> list[str]:
    """List a folder of a dataset.

    Args:
        folder: the folder.

    Returns:
        The sorted names in it.

    Raises:
        IONError: it is missing or cannot be read.
    """
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        raise IONError(
            f"Folder {folder} cannot be read ({error.strerror}); a dataset in VOC layout has the "
            "folders Annotations, ImageSets/Main and JPEGImages."
        ) from error


def read_lines(path: str) -> list[str]:
    """Read the lines of a UTF-8 text file.

    Args:
        path: the file; a byte-order mark and any kind of line end are fine.

    Returns:
        The lines that are not blank, without surrounding white space.

    Raises:
        IONError: the file cannot be read or is not UTF-8.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            return [line.strip() for line in file if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise IONError(f"{path} cannot be read as UTF-8 text ({error}); replace it.") from error
