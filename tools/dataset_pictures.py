"""What tools/check_dataset.py finds in pictures and label maps."""

from __future__ import annotations

import functools
import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, NamedTuple

import numpy as np
from dataset_labels import Dataset
from dataset_rules import Finding
from detectron2.config import CfgNode
from detectron2.utils.file_io import PathManager
from PIL import Image, ImageOps

from ion_d2.data.readable import (
    DECODE_ERRORS,
    EXIF_ORIENTATION,
    QUARTER_TURNS,
    open_picture,
    read_image,
    upright_size,
)
from ion_d2.data.sem_seg import read_label_map
from ion_d2.errors import IONError

# A JPEG file ends with this marker, which no compressed data holds; some cameras add a few zeros.
_END, _TAIL = b"\xff\xd9", 64
_GRAY = ("1", "L", "LA")
# Bits of the 128 in which the hashes of one picture, scaled or compressed anew, may differ.
_ALIKE = 8
_BLOCK = 1024


class Look(NamedTuple):
    """What a picture's file tells.

    Attributes:
        rule: what is wrong with the whole file, or "".
        told: a sentence about it.
        mode: Pillow's.
        size: height and width, turned as EXIF asks.
        orientation: EXIF's; 1 as it is.
        bytes: the file's size.
        hash: (128,) bool, if asked for.
    """

    rule: str = ""
    told: str = ""
    mode: str = ""
    size: tuple[int, int] = (0, 0)
    orientation: int = 1
    bytes: int = 0
    hash: np.ndarray | None = None


def look_at_all(names: Iterable[str], *, with_hash: bool) -> dict[str, Look]:
    """Look at each picture once."""
    once = list(dict.fromkeys(names))
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return dict(zip(once, pool.map(functools.partial(look, with_hash=with_hash), once)))


def look(name: str, *, with_hash: bool = False) -> Look:
    """Look at a picture's header and its end, and decode it where these leave a doubt."""
    try:
        path = PathManager.get_local_path(name)
        found = _look_without_decoding(path) if os.path.isfile(path) else None
        if found is None:
            read_image(name)  # raises an error that says what is wrong
            found = _look_decoding(path)
        if found.mode.startswith(("I", "F")):
            return found._replace(rule="deep-picture", told=f"{name} (Pillow's mode {found.mode})")
        return found._replace(hash=_difference_hash(path)) if with_hash else found
    except IONError as error:
        return Look(error.rule or "broken-picture", str(error))
    except DECODE_ERRORS as error:
        return Look("broken-picture", f"{name} ({error})")


def _look_without_decoding(path: str) -> Look | None:
    """What the header tells, if the rest of the file shows that nothing is missing; else None."""
    try:
        with open(path, "rb") as file, open_picture(file) as image:
            if image.format in ("JPEG", "MPO") and _ends(file):
                return _told_by(image, file, image.getexif().get(EXIF_ORIENTATION, 1))
            if image.format == "PNG" and not _has_exif(file):
                image.verify()  # reads the checksums of all parts
                return _told_by(image, file, 1)
    except DECODE_ERRORS:
        return None  # the decoder knows better
    return None


def _look_decoding(path: str) -> Look:
    with open(path, "rb") as file, open_picture(file) as image:
        return _told_by(image, file, image.getexif().get(EXIF_ORIENTATION, 1))


def _told_by(image: Image.Image, file: IO[bytes], orientation: int) -> Look:
    size = upright_size(image, orientation)
    return Look("", "", image.mode, size, orientation, os.fstat(file.fileno()).st_size)


def _ends(file: IO[bytes]) -> bool:
    file.seek(-min(_TAIL, os.fstat(file.fileno()).st_size), os.SEEK_END)
    return _END in file.read()


def _has_exif(file: IO[bytes]) -> bool:
    """Whether a PNG file may be marked as turned, perhaps after the pixels."""
    place = file.tell()
    file.seek(0)
    content = file.read()
    file.seek(place)
    return any(mark in content for mark in (b"eXIf", b"exif", b"xmp"))


def _difference_hash(path: str) -> np.ndarray:
    """Where the picture, at 9 x 9 pixels, gets brighter to the right and to the bottom."""
    with open(path, "rb") as file, open_picture(file) as image:
        image.draft("L", (72, 72))  # JPEG decodes to less pixels in a fraction of the time
        small = ImageOps.exif_transpose(image).convert("L").resize((9, 9), Image.Resampling.BOX)
    levels = np.asarray(small, dtype=np.int16)
    steps = np.diff(levels, axis=1)[:8] > 0, np.diff(levels, axis=0)[:, :8] > 0
    return np.concatenate([step.ravel() for step in steps])


def find_picture_faults(dataset: Dataset, looks: dict[str, Look]) -> Iterator[Finding]:
    """Faults of single pictures of a dataset."""
    modes = {looks[record["file_name"]].mode for record in dataset.records}
    gray_is_odd = not modes <= {*_GRAY, ""}
    for record in dataset.records:
        name = record["file_name"]
        found = looks[name]

        def fault(rule: str, place: str, name: str = name) -> Finding:
            return Finding(rule, dataset.name, place, (name,))

        if found.rule:
            yield fault(found.rule, found.told)
            continue
        if found.orientation in range(2, 9):
            yield fault("turned-picture", f"{name} (orientation {found.orientation})")
        if found.mode in _GRAY and gray_is_odd:
            yield fault("gray-picture", name)
        stated = record["height"], record["width"]
        if stated != found.size:
            sizes = f"{stated[1]}x{stated[0]} in the labels, {found.size[1]}x{found.size[0]}"
            turned = ", turned as its EXIF data asks" if found.orientation in QUARTER_TURNS else ""
            yield fault("size-differs", f"{name}: {sizes} in the picture{turned}")


def find_label_map_faults(
    dataset: Dataset, cfg: CfgNode | None, looks: dict[str, Look]
) -> Iterator[Finding]:
    """Faults of segmentation label maps; each is decoded."""
    ignored = 255 if cfg is None else cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
    for record in dataset.records:
        path, name = record.get("sem_seg_file_name"), record["file_name"]
        if path is None:
            continue
        try:
            labels = read_label_map(path, len(dataset.classes) + 1, ignored)
        except IONError as error:
            yield Finding(error.rule or "label-map-broken", dataset.name, str(error), (name,))
            continue
        size = looks[name].size
        if labels.shape != size and size != Look().size:  # or the picture is reported elsewhere
            sizes = f"{labels.shape[1]}x{labels.shape[0]}, its picture {size[1]}x{size[0]}"
            yield Finding("label-map-size", dataset.name, f"{path}: {sizes}", (name,))


def find_copies(datasets: Sequence[Dataset], looks: dict[str, Look]) -> Iterator[Finding]:
    """Pictures with the same bytes, and those whose hashes are alike."""
    homes = defaultdict(list)  # datasets by picture
    for dataset in datasets:
        for name in dict.fromkeys(record["file_name"] for record in dataset.records):
            homes[name].append(dataset.name)
    for name, (first, *others) in homes.items():
        for other in others:
            yield Finding("leak", other, f"{name}, also in {first}", (name,))
    copies = set()
    for first, *others in _same_bytes(looks):
        copies.update(others)
        for other in others:
            yield _pair("same-picture", "leak", first, other, homes)
    for one, other in _alike({n: found for n, found in looks.items() if n not in copies}):
        yield _pair("similar-picture", "similar-leak", one, other, homes)


def _pair(within: str, between: str, one: str, other: str, homes: dict[str, list[str]]) -> Finding:
    shared = [name for name in homes[other] if name in homes[one]]
    where = shared[0] if shared else homes[other][0]
    told = f"{other} and {one}" + ("" if shared else f" of {homes[one][0]}")
    return Finding(within if shared else between, where, told, (other, one))


def _same_bytes(looks: dict[str, Look]) -> Iterator[list[str]]:
    """Groups of pictures with the same bytes; only files of one size are read."""
    sizes, groups = defaultdict(list), defaultdict(list)
    for name, found in looks.items():
        if found.bytes:
            sizes[found.bytes].append(name)
    for names in sizes.values():
        for name in names if len(names) > 1 else ():
            with PathManager.open(name, "rb") as file:
                groups[hashlib.sha256(file.read()).digest()].append(name)
    return (names for names in groups.values() if len(names) > 1)


def _alike(looks: dict[str, Look]) -> Iterator[tuple[str, str]]:
    hashed = [(name, found.hash) for name, found in looks.items() if found.hash is not None]
    if not hashed:
        return
    names = [name for name, _ in hashed]
    # Signs, so that a product counts equal bits less different ones.
    bits = np.array([bits for _, bits in hashed], dtype=np.float32) * 2 - 1
    for start in range(0, len(names), _BLOCK):
        least = bits.shape[1] - 2 * _ALIKE
        rows, columns = np.nonzero(bits[start : start + _BLOCK] @ bits.T >= least)
        for row, column in zip(rows + start, columns):
            if row < column:
                yield names[row], names[column]
