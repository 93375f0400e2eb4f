"""What demo.py found, as a dataset: first labels of new pictures, to be corrected by hand."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import Any

from detectron2.structures import BoxMode

from ..errors import IONError
from .class_file import read_class_file
from .dataset_names import DATASET_FORMS, absolute, require_path
from .plain_files import read_json
from .registered_datasets import register_completed


@DATASET_FORMS.register()
def detections(name: str) -> None:
    """Register ``detections:NAME.json``, a file of demo.py beside its ``NAME.classes.txt``.

    Raises:
        IONError: one of the two is missing.
    """
    path = absolute(name[len("detections:") :])
    listed = f"{os.path.splitext(path)[0]}.classes.txt"
    require_path(name, path)
    require_path(name, listed)
    classes = read_class_file(listed)
    register_completed(name, functools.partial(load_detections, path, classes), classes)


def load_detections(path: str, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Read the pictures of a file of demo.py and the boxes found in them.

    Returns:
        Detectron2's dataset dicts; paths of pictures are as demo.py got them.

    Raises:
        IONError: the file is none of demo.py, lists frames of videos, or is of other classes.
    """
    pictures = read_json(path, "detect again")
    try:
        if any("frame" in picture for picture in pictures):
            raise IONError(
                f"{path} lists frames of videos, which are no picture files; detect again with "
                "--save labelme (or yolo), which keeps the frames, and take that folder."
            )
        return [
            {
                "file_name": picture["file"],
                "image_id": picture["file"],
                "height": picture["height"],
                "width": picture["width"],
                "annotations": [_annotation(found, classes) for found in picture["detections"]],
            }
            for picture in pictures
        ]
    except IONError:  # a ValueError, too
        raise
    except (LookupError, TypeError, ValueError) as error:
        raise IONError(
            f"{path} is no file of detections of demo.py with these classes "
            f"({type(error).__name__}: {error}); detect again."
        ) from error


def _annotation(found: dict[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    box = {"bbox": found["box"], "bbox_mode": BoxMode.XYXY_ABS}
    return {**box, "category_id": classes.index(found["class"])}
