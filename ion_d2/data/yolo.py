"""Datasets in the layout of Ultralytics' YOLO.

``data.yaml`` names the classes, and for each split a folder of pictures or a text file that lists
them. The labels of ``images/train/a.jpg`` lie in ``labels/train/a.txt``, a line an object: its
class and, in shares of the picture's width and height, either center, width and height of a box or
the corners of an outline.
"""

from __future__ import annotations

import functools
import logging
import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ..errors import IONError
from .class_file import check_class_names, is_unprintable
from .dataset_names import DATASET_FORMS, path_and_split
from .folders import find_files, named_file, path_from, read_lines
from .outlines import object_of, outline_boxes
from .plain_files import read_yaml
from .readable import read_size
from .reading_on import is_reading_on, read_each, refuse
from .registered_datasets import register_completed

logger = logging.getLogger(__name__)

NO_SPLITS = ("path", "names", "nc", "channels", "kpt_shape", "flip_idx", "download", "roboflow")
"""Keys of a ``data.yaml`` that are no splits."""
IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
"""Those of the pictures that are found in a folder."""
# A box of a center, or an outline of at least three corners.
_BOX, _LEAST_OUTLINE = 4, 6
# By how much a share may miss 0 or 1: programs round.
_TOLERANCE = 0.01


@DATASET_FORMS.register()
def yolo(name: str) -> None:
    """Register ``yolo:DATA.YAML:SPLIT``.

    Raises:
        IONError: the name has another form, or the file lacks something.
    """
    path, split = path_and_split(name, "yolo:DATA.YAML:SPLIT", "yolo:~/data/coco8.yaml:train")
    content = read_yaml(path)
    classes = class_names_of(content, path)
    if content.get("kpt_shape"):
        raise IONError(
            f"{path} has keypoints ('kpt_shape'), which are not read from YOLO's labels; convert "
            "them to COCO's format and name the set coco:JSON:IMAGE_DIR."
        )
    load = functools.partial(
        load_yolo, os.path.dirname(path), _pictures(content, path, split), classes
    )
    register_completed(name, load, classes)


def load_yolo(folder: str, pictures: Sequence[str], classes: Sequence[str]) -> list[dict[str, Any]]:
    """Load pictures with the labels beside them; a picture without a file of labels has no object.

    A picture's id is its path from ``folder`` on.

    Returns:
        Detectron2's dataset dicts. Without "annotations", and with a warning, if no picture has a
        file of labels.

    Raises:
        IONError: a picture or a file of labels is not usable.
    """
    labels = [_label_file(picture) for picture in pictures]
    labeled = any(map(os.path.exists, labels))
    if not labeled:
        logger.warning("None of %d pictures has labels; the first: %s.", len(labels), labels[0])

    def load(place: tuple[str, str]) -> dict[str, Any]:
        picture, file = place
        height, width = size = read_size(picture)
        record: dict[str, Any] = {"file_name": picture, "height": height, "width": width}
        record["image_id"] = path_from(folder, picture)
        if labeled:
            record["annotations"] = _objects(file, len(classes), size)
        return record

    records = read_each(zip(pictures, labels), load)
    outline_boxes(records)
    return records


def _objects(file: str, num_classes: int, size: tuple[int, int]) -> list[dict[str, Any]]:
    lines = list(enumerate(read_lines(file) if os.path.exists(file) else (), 1))
    if not is_reading_on():  # Ultralytics' reader drops repeated lines, too
        first = {line: number for number, line in reversed(lines)}
        lines = [(number, line) for number, line in lines if first[line] == number]
    return read_each(
        lines, lambda line: _object(line[1], f"{file}, line {line[0]}", num_classes, size)
    )


def _object(line: str, where: str, num_classes: int, size: tuple[int, int]) -> dict[str, Any]:
    try:
        category, *shares = map(float, line.split())
    except ValueError as error:
        raise IONError(
            f"{where} is {line!r}, but must be the number of a class and then numbers; correct it."
        ) from error
    if len(shares) != _BOX and (len(shares) < _LEAST_OUTLINE or len(shares) % 2):
        raise IONError(
            f"{where} has {len(shares)} numbers after the class; a box has {_BOX} (without a "
            "score), and an outline two for each of three or more corners; correct the line."
        )
    if category not in range(num_classes):
        raise IONError(
            f"{where} has the class {category:g}, but 'names' has those from 0 to "
            f"{num_classes - 1}; correct the line, or name the class.",
            rule="unknown-class",
        )
    wrong = [s for s in shares if not -_TOLERANCE <= s <= 1 + _TOLERANCE]
    if wrong:
        raise IONError(
            f"{where} has {wrong[0]:g}; places and sizes are shares of the picture's width and "
            "height, from 0 to 1; correct the line."
        )
    is_box = len(shares) == _BOX
    if is_box:
        x, y, width, height = shares
        shares = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
    pixels = [(x * size[1], y * size[0]) for x, y in zip(shares[::2], shares[1::2])]
    return object_of([pixels], int(category), size, is_box=is_box)


def _label_file(picture: str) -> str:
    """The labels' place: the last folder "images" of the picture's path is "labels"."""
    folders = os.path.splitext(picture)[0].split(os.sep)
    places = [i for i, folder in enumerate(folders[:-1]) if folder == "images"]
    if places:
        folders[places[-1]] = "labels"
    return named_file(*os.path.split(os.sep.join(folders) + ".txt"))


def class_names_of(content: Any, path: str) -> list[str]:
    """The classes that the content of a ``data.yaml`` names.

    Raises:
        IONError: it names none, or in no usable form.
    """
    if not isinstance(content, dict) or "names" not in content:
        raise IONError(f"{path} is not a YOLO data file: it has no 'names' of classes.")
    names = content["names"]
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise IONError(f"{path}: 'names' must number the classes 0, 1, 2, ... without a gap.")
        names = [names[index] for index in range(len(names))]
    # YAML reads 1 as a number, and no as False, which must be written in quotes.
    readable = isinstance(names, list) and all(type(name) in (str, int, float) for name in names)
    if not readable or not names:
        raise IONError(
            f"{path}: 'names' must be a list of class names, or 0: NAME, 1: NAME, ...; write one "
            "that YAML reads as no text, such as no, in quotes."
        )
    return check_class_names([str(name) for name in names], f"{path} ('names')")


def _pictures(content: dict[str, Any], path: str, split: str) -> list[str]:
    places = content.get(split)
    if not places:
        known = [key for key in content if key not in NO_SPLITS and content[key]]
        raise IONError(
            f"{path} has no split '{split}'; it has {', '.join(map(str, known)) or 'none'}."
        )
    places = places if isinstance(places, list) else [places]
    root = content.get("path") or ""
    names = (root, *places)
    if not all(isinstance(name, str) and not is_unprintable(name) for name in names):
        raise IONError(
            f"{path}: '{split}' must be a folder, a text file or a list of them, and 'path', if "
            "there is one, the folder that they start from."
        )
    root = named_file(os.path.dirname(path), os.path.expanduser(root))
    found = [file for place in places for file in _pictures_in(place, root, path)]
    if not found:
        raise IONError(f"{path}: there is no picture in '{split}' ({', '.join(places)}).")
    for picture, count in Counter(found).items():
        if count > 1:
            text = f"{path}: '{split}' names {picture} {count} times; keep one of each"
            refuse(IONError(f"{text}.", rule="listed-twice"))
    return list(dict.fromkeys(found))


def _pictures_in(place: str, root: str, path: str) -> list[str]:
    # Roboflow writes "../train/images" and means the folder beside the file, as Ultralytics knows.
    found = _find(root, os.path.expanduser(place), "../")
    if os.path.isdir(found):
        return sorted(find_files(found, IMAGE_EXTENSIONS))
    if os.path.isfile(found):  # and no device
        # CVAT writes "data/images/train/a.jpg" and means the folders beside the list.
        return [_find(os.path.dirname(found), line, "data/") for line in read_lines(found)]
    raise IONError(
        f"{path} names {place}, but {found} is no folder or file there; correct 'path' or the "
        "split."
    )


def _find(folder: str, name: str, prefix: str) -> str:
    """The path of a name in a folder; where nothing is there, that without the prefix may be."""
    short = name.replace("\\", "/").removeprefix(prefix)
    full, other = (_normal(named_file(folder, each)) for each in (name, short))
    return full if os.path.exists(full) or not os.path.exists(other) else other


def _normal(path: str) -> str:
    """A path without "..", unless that stands behind a link and so means another place."""
    plain = os.path.normpath(path)
    if os.pardir in path.split(os.sep) and os.path.realpath(plain) != os.path.realpath(path):
        return os.path.realpath(path)
    return plain
