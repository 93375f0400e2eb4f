"""The lists of images in ``ImageSets/Main`` of a folder in VOC layout."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from typing import Union

from ..errors import IONError
from .folders import composed, list_folder, read_lines
from .reading_on import refuse

PathLike = Union[str, os.PathLike]

# VOC's per-class lists ("aeroplane_train.txt") carry a flag after each ID.
_FLAGGED_ID = re.compile(r"(.*\S)\s+(?:-1|0|1)")
# Lists of other programs name files: "JPEGImages/im0.jpg", also with a second file after it.
_FILE_NAME = re.compile(r"(.+?)\.(?:jpe?g|png|xml)(?:\s.*)?", re.IGNORECASE)
_ABOVE_ID = re.compile(r"^.*\b(?:JPEGImages|Annotations)/|(?:\./)+")


def read_split(root: PathLike, split: str) -> list[str]:
    """Read the stripped lines of ``ImageSets/Main/SPLIT.txt`` that are not blank.

    Raises:
        IONError: the file is missing, is not text or names no image.
    """
    folder = os.path.join(os.fspath(root), "ImageSets", "Main")
    path = os.path.join(folder, split + ".txt")
    if not os.path.isfile(path):
        names = sorted(f[:-4] for f in list_folder(folder) if f.endswith(".txt"))
        raise IONError(
            f"There is no split file {path}; the splits there are: {', '.join(names) or 'none'}."
        )
    lines = read_lines(path)
    if not lines:
        raise IONError(f"Split file {path} names no image; write one image ID a line into it.")
    return lines


def read_image_ids(root: PathLike, split: str, images: Collection[str]) -> list[str]:
    """Find the images that a split names, in the order of its list.

    A line is an image ID, alone or with the flag of VOC's per-class lists. Names of files, paths
    and pairs of paths, as other programs list them, are understood; lines that start with "#" and
    name no image are comments. ``images`` are the IDs of the pictures that are there.

    Raises:
        IONError: the file is missing or empty, an image is not there, or is named twice.
    """
    ids: dict[str, None] = {}
    missing = None
    for line in map(composed, read_split(root, split)):
        image_id = next((meant for meant in _readings(line) if meant in images), None)
        if image_id is not None and image_id not in ids:
            ids[image_id] = None
        elif image_id is not None:
            text = f"Split '{split}' of {root} names image '{image_id}' more than once"
            refuse(IONError(f"{text}; keep one line.", rule="listed-twice"))
        elif not line.startswith("#"):
            missing = _missing(root, split, line, images)
            refuse(missing)
    if not ids:
        comments = f"Split '{split}' of {root} holds comments only; name images in it."
        raise missing or IONError(comments)
    return list(ids)


def _readings(line: str) -> Iterator[str]:
    """The IDs that a line may mean, the likeliest first."""
    yield line  # also of an image whose name only looks like one with a flag
    line = line.replace("\\", "/")
    flagged = _FLAGGED_ID.fullmatch(line)
    for text in [flagged.group(1), line] if flagged else [line]:
        yield text
        file_name = _FILE_NAME.fullmatch(text)
        path = _ABOVE_ID.sub("", file_name.group(1) if file_name else text, count=1)
        yield path
        yield path.rpartition("/")[2]


def _missing(root: PathLike, split: str, line: str, images: Collection[str]) -> IONError:
    below = sorted(image_id for image_id in images if image_id.endswith(f"/{line}"))
    found = f" (there is {below[0]}, in a subfolder)" if below else ""
    return IONError(
        f"{os.path.join(os.fspath(root), 'JPEGImages')} has no picture {line} (.jpg, .jpeg or "
        f".png), but split '{split}' names it{found}; restore the picture or correct the line, "
        "which is an image ID: the path below JPEGImages without extension.",
        rule="missing-picture",
    )
