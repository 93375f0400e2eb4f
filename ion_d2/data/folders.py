"""Listing folders and reading short text files of a dataset, with clear errors."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from ..errors import IONError


def index_folder(folder: str, extensions: Sequence[str]) -> dict[str, str]:
    """Find files as :func:`find_files` does; of several with one stem, the earlier extension wins.

    Returns:
        Path by :func:`composed` file name without extension, as "a/im0" in the subfolder "a".

    Raises:
        IONError: the folder is missing or cannot be read.
    """
    found: dict[str, tuple[int, str]] = {}
    for path in find_files(folder, extensions):
        stem = file_stem(os.path.relpath(path, folder))
        rank = extensions.index(os.path.splitext(path)[1].lower())
        if stem not in found or rank < found[stem][0]:
            found[stem] = (rank, path)
    return {stem: path for stem, (_, path) in found.items()}


def file_stem(path: str) -> str:
    """A file's path without extension as :func:`index_folder` has it: composed, with "/"."""
    return composed(os.path.splitext(path)[0]).replace(os.sep, "/")


def path_from(folder: str, path: str) -> str:
    """A file's path from a folder on, with "/"; the same wherever the folder lies."""
    return os.path.relpath(path, folder).replace(os.sep, "/")


def pictures_called(names: Collection[str], stems: Iterable[str]) -> dict[str, list[int]]:
    """Find, for each name, the pictures whose path ends in it: "im0" and "a/im0" for "J/a/im0".

    If several end in it, the highest one is meant, provided that all others lie below its folder.

    Args:
        names: those of labels or the like; all are :func:`composed`.
        stems: a path without extension for each picture, which is another one each.

    Returns:
        The places of the pictures, for each name that has some; more than one if it is ambiguous.
    """
    known, places = set(names), defaultdict(list)
    for place, stem in enumerate(stems):
        parts = stem.split("/")
        for start in range(len(parts)):
            tail = "/".join(parts[start:])
            if tail in known:
                places[tail].append((stem[: -len(tail)], place))
    called = {}
    for name, several in places.items():
        (above, first), *others = sorted(several)
        highest = all(folder != above and folder.startswith(above) for folder, _ in others)
        called[name] = [first] if highest else sorted(place for _, place in several)
    return called


def own_names(called: Mapping[str, Sequence[int]]) -> dict[int, str]:
    """For each picture, the longest name that means it alone by :func:`pictures_called`."""
    alone = [(name, places[0]) for name, places in called.items() if len(places) == 1]
    return {place: name for name, place in sorted(alone, key=lambda one: len(one[0]))}


def find_files(folder: str, extensions: Sequence[str]) -> Iterator[str]:
    """Find the visible files with given extensions in a folder and its subfolders.

    Extensions are given with dot and in lower case; files may have any case.

    Raises:
        IONError: the folder is missing or cannot be read.
    """
    list_folder(folder)  # raises what os.walk keeps to itself
    for path in visible_files(folder):
        if os.path.splitext(path)[1].lower() in extensions:
            yield path


def visible_files(folder: str) -> Iterator[str]:
    """Find the files of a folder and its subfolders, those that links lead to as well, by name.

    Hidden files and folders are left out, and links to a folder that they lie in themselves.
    """
    for place, subfolders, names in os.walk(folder, followlinks=True):
        seen = sorted(name for name in subfolders if not name.startswith("."))
        subfolders[:] = [name for name in seen if not _leads_back(os.path.join(place, name))]
        yield from (os.path.join(place, x) for x in sorted(names) if not x.startswith("."))


def _leads_back(path: str) -> bool:
    """Whether a folder is a link to one above it; following it would have no end."""
    if not os.path.islink(path):
        return False
    return any(os.path.samefile(path, above) for above in Path(path).absolute().parents)


def named_file(folder: str, name: str) -> str:
    r"""The path of a file that a label names, from its folder on.

    Where none has that very name, "\" may stand for "/", and Unicode's other form for the name's.
    Names that have no other spelling are not looked for.
    """
    spelled = name, name.replace("\\", "/")
    forms = (unicodedata.normalize(form, text) for text in spelled for form in ("NFC", "NFD"))
    places = [os.path.join(folder, text) for text in dict.fromkeys((*spelled, *forms))]
    there = filter(os.path.exists, places) if len(places) > 1 else iter(places)
    return next(there, places[0])


def composed(name: str) -> str:
    """A name in Unicode's composed form (NFC): some systems store "ü" as "u" and a mark."""
    return unicodedata.normalize("NFC", name)


def list_folder(folder: str) -> list[str]:
    """The sorted names in a folder of a dataset.

    Raises:
        IONError: it is missing or cannot be read.
    """
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        raise IONError(
            f"Folder {folder} cannot be read ({error.strerror}); correct the path (of VOC's layout "
            "there are Annotations, ImageSets/Main and JPEGImages)."
        ) from error


def read_lines(path: str) -> list[str]:
    """Read the stripped lines of a UTF-8 text file that are not blank.

    Raises:
        IONError: the file cannot be read or is not UTF-8.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            return [line.strip() for line in file if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise IONError(f"{path} cannot be read as UTF-8 text ({error}); replace it.") from error
