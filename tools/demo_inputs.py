"""What demo.py detects on: pictures, videos and cameras, one picture or frame at a time."""

from __future__ import annotations

import glob
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from demo_folder import OutputFolder
from demo_video import Clip, open_video

from ion_d2.data.folders import visible_files
from ion_d2.data.readable import read_image
from ion_d2.errors import IONError

SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
VIDEO_SUFFIXES = {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"}
_PART_EXPECTED = 0.9  # of the frames that a header promises, which is an estimate in some formats


class Input(NamedTuple):
    """A file, the address of a stream or the number of a camera, with the place of its drawing."""

    source: Path | str | int
    place: Path
    is_clip: bool


@dataclass
class Shot:
    """A picture, (H, W, 3) uint8 BGR, or a frame of a clip, with the place of its drawing."""

    file: str
    image: np.ndarray
    place: Path
    clip: Clip | None = None
    frame: int | None = None
    seconds: float | None = None

    @property
    def stem(self) -> str:
        """A name for a file of its own."""
        return self.place.stem if self.frame is None else f"{self.place.stem}_{self.frame:06d}"


def find_pictures(inputs: Sequence[str], folder: OutputFolder) -> dict[Path, Path]:
    """Find the pictures, and the videos that are named, and choose where each is drawn.

    A picture of a searched folder keeps its place below it. No two drawings share a file, and none
    takes the place of an input. Drawings of an earlier run are not taken for inputs.

    Args:
        inputs: files, folders or glob patterns.
        folder: for the drawings.

    Returns:
        The drawing's file for each picture and video, in the order of the inputs.

    Raises:
        IONError: an input matches no picture.
    """
    places: dict[Path, Path] = {}
    for text in inputs:
        found = [(path, place) for path, place in _expand(text, folder) if not folder.is_ours(path)]
        if not found:
            raise IONError(
                f"--input {text} matches no picture; give files, folders or quoted patterns, and "
                "KEY VALUE overrides after another option's value, for instance --output's."
            )
        for picture, place in found:
            places.setdefault(picture, place)
    folder.keep(places)
    return {
        path: folder.free(folder.path / place, ".mp4" if is_video(path) else ".jpg")
        for path, place in places.items()
    }


def _expand(text: str, folder: OutputFolder) -> list[tuple[Path, Path]]:
    """List the pictures of one input with their places below the output folder."""
    path = Path(text).expanduser()
    if path.is_file():
        return [(path, Path(path.name))]
    if path.is_dir():
        own = folder.path.resolve()
        found = [(p, p.relative_to(path)) for p in pictures_of(path)]
        # The search may come upon the output folder, in this one or through a link.
        return [(p, q) for p, q in found if all((path / x).resolve() != own for x in _folders(q))]
    files = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
    return [(p, Path(p.name)) for p in files if is_picture(p) or (is_video(p) and p.is_file())]


def _folders(place: Path) -> list[Path]:
    """The folders that a relative path leads through."""
    return list(place.parents)[:-1]  # the last is "."


def pictures_of(folder: Path) -> list[Path]:
    """List the pictures of a folder and its subfolders by name.

    What is hidden is left out, as in datasets: Jupyter, macOS and others keep copies so.
    """
    return sorted(filter(is_picture, map(Path, visible_files(str(folder)))))


def is_picture(path: Path) -> bool:
    """Whether it is a file with the name of a picture."""
    return path.suffix.lower() in SUFFIXES and path.is_file()


def is_video(path: Path) -> bool:
    """Whether its name is a video's."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def read_shots(inputs: Iterable[Input], every: int, faults: dict[str, str]) -> Iterator[Shot]:
    """Read pictures, and every so many frames of videos, one at a time.

    What cannot be read is left out, and its sentence put into ``faults`` by the name of the source.
    """
    for source, place, is_clip in inputs:
        try:
            if is_clip:
                yield from _frames(source, place, every)
            else:
                yield Shot(str(source), read_image(str(source), "BGR"), place)
        except IONError as error:
            faults[str(source)] = str(error)


def _frames(source: Path | str | int, place: Path, every: int) -> Iterator[Shot]:
    clip = open_video(source, every)
    count = 0
    try:
        while (image := clip.read()) is not None:
            if count % every == 0:
                yield Shot(clip.name, image, place, clip, count, clip.seconds(count))
            count += 1
    finally:
        clip.capture.release()
    if not count:
        raise IONError(f"{clip.name} has no frame that can be decoded")
    if count < _PART_EXPECTED * clip.frames:
        raise IONError(
            f"{clip.name} has {clip.frames} frames by its header, but only the first {count} can "
            "be decoded; what was found in these is kept"
        )


def batches(shots: Iterable[Shot], size: int) -> Iterator[list[Shot]]:
    """Put up to so many pictures of one size in succession together.

    Such a batch is not padded, and so each finds what it finds alone.
    """
    for _, alike in itertools.groupby(shots, key=lambda shot: shot.image.shape):
        while batch := list(itertools.islice(alike, size)):
            yield batch
