"""A folder in Pascal VOC layout -> Detectron2 dataset dicts.

The layout: ``JPEGImages/ID.jpg`` (or .jpeg, .png, in any case), ``Annotations/ID.xml``,
``ImageSets/Main/SPLIT.txt`` with one ID a line and, where there are segmentation labels,
``SegmentationClass/ID.png``.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from typing import Any, Union

from detectron2.structures import BoxMode
from PIL import Image

from ion_d2.data.class_file import read_class_file
from ion_d2.data.folders import composed, index_folder, list_folder, read_lines
from ion_d2.data.voc_xml import Annotation, VOCObject, parse_annotation
from ion_d2.errors import IONError

logger = logging.getLogger(__name__)

PathLike = Union[str, os.PathLike]

_IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png")  # first one wins where an ID has several
_LABEL_EXTENSIONS = (".png",)
_EXIF_ORIENTATION = 274
_QUARTER_TURNS = (5, 6, 7, 8)
# VOC's per-class lists ("aeroplane_train.txt") carry a flag after each ID.
_FLAGGED_ID = re.compile(r"(.*\S)\s+(?:-1|0|1)")


def load_voc_layout(root: PathLike, split: str, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Load the images of one split with their boxes.

    Boxes are clipped to the image. A box that then has no extent (``xmin >= xmax`` or
    ``ymin >= ymax`` in the file's inclusive coordinates) is left out, with one warning for all.
    Images without objects and objects marked difficult stay.

    Args:
        root: folder that holds ``Annotations``, ``ImageSets`` and ``JPEGImages``.
        split: name of a file in ``ImageSets/Main``, without ``.txt``.
        class_names: the classes in the order of their ids.

    Returns:
        One Detectron2 dataset dict an image, in the order of the split, boxes as 0-based
        ``XYXY_ABS`` with exclusive right and bottom; ``sem_seg_file_name`` where there is a label.

    Raises:
        IONError: a folder, the split, an image or an annotation file is missing or broken, the
            split is empty or names an image twice, or a class is not in ``class_names``.
    """
    root = os.fspath(root)
    images = index_folder(os.path.join(root, "JPEGImages"), _IMAGE_EXTENSIONS)
    labels = _label_maps(root)
    image_ids = _unique_ids(root, split, images)
    annotated = index_folder(os.path.join(root, "Annotations"), (".xml",))
    category_ids = {name: index for index, name in enumerate(class_names)}
    dropped = _DroppedBoxes()
    dicts = []
    for image_id in image_ids:
        xml_file = annotated.get(image_id, os.path.join(root, "Annotations", image_id + ".xml"))
        file_name = _image_file(root, split, image_id, images)
        record = {"file_name": file_name, "image_id": image_id}
        annotation = parse_annotation(xml_file)
        record["height"], record["width"] = _image_size(annotation, file_name)
        record["annotations"] = _annotations(annotation, record, category_ids, xml_file, dropped)
        if image_id in labels:
            record["sem_seg_file_name"] = labels[image_id]
        dicts.append(record)
    dropped.warn()
    return dicts


def read_split(root: PathLike, split: str) -> list[str]:
    """Read the lines of ``ImageSets/Main/SPLIT.txt``.

    Args:
        root: folder in VOC layout.
        split: name of the split, without ``.txt``.

    Returns:
        The lines that are not blank, without surrounding white space.

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


def find_classes(root: PathLike) -> list[str]:
    """Find the classes of a folder in VOC layout.

    Args:
        root: folder that holds ``Annotations``.

    Returns:
        The names in ``classes.txt`` of the folder or else of its parent (one a line; blank lines,
        lines starting with ``#`` and a leading ``background`` do not count), or else the sorted
        names of all objects in ``Annotations``. Sorting puts VOC's 20 classes into VOC's order.

    Raises:
        IONError: no class was found, ``classes.txt`` names one twice, or an annotation is broken.
    """
    root = os.path.abspath(root)
    for folder in (root, os.path.dirname(root)):
        path = os.path.join(folder, "classes.txt")
        if os.path.isfile(path):
            return read_class_file(path)
    folder = os.path.join(root, "Annotations")
    names = {
        found.name
        for path in index_folder(folder, (".xml",)).values()
        for found in parse_annotation(path).objects
    }
    if not names:
        raise IONError(
            f"No annotation file in {folder} holds an object, so the classes are unknown; name "
            f"them in {os.path.join(root, 'classes.txt')}, one a line."
        )
    return sorted(names)


def _label_maps(root: str) -> dict[str, str]:
    folder = os.path.join(root, "SegmentationClass")
    return index_folder(folder, _LABEL_EXTENSIONS) if os.path.isdir(folder) else {}


def _unique_ids(root: str, split: str, images: dict[str, str]) -> list[str]:
    """The image IDs of a split; a line is an ID as a whole unless it ends in a per-class flag."""
    ids: dict[str, None] = {}
    for line in map(composed, read_split(root, split)):
        flagged = _FLAGGED_ID.fullmatch(line)
        # What only looks like a flag may be the end of an ID, also of one whose image is missing.
        has_flag = flagged and line not in images and flagged.group(1) in images
        image_id = flagged.group(1) if has_flag else line
        if image_id in ids:
            raise IONError(
                f"Split '{split}' of {root} names image '{image_id}' more than once; keep one line "
                "of it."
            )
        ids[image_id] = None
    return list(ids)


def _image_file(root: str, split: str, image_id: str, images: dict[str, str]) -> str:
    if image_id not in images:
        raise IONError(
            f"{os.path.join(root, 'JPEGImages', image_id)} (.jpg, .jpeg or .png) does not exist, "
            f"but split '{split}' names it; restore the image or take its line out of the split."
        )
    return images[image_id]


def _image_size(annotation: Annotation, file_name: str) -> tuple[int, int]:
    """(height, width) from the annotation, or else from the picture's header."""
    if annotation.height is not None and annotation.width is not None:
        return annotation.height, annotation.width
    try:
        with Image.open(file_name) as image:
            width, height = image.size
            orientation = image.getexif().get(_EXIF_ORIENTATION)
    except (OSError, SyntaxError, ValueError) as error:
        raise IONError(
            f"{file_name} is not a readable picture ({error}) and its annotation gives no size; "
            "replace the picture or take it out of the split."
        ) from error
    # Detectron2 turns pictures as their EXIF data asks.
    return (width, height) if orientation in _QUARTER_TURNS else (height, width)


def _annotations(
    annotation: Annotation,
    record: dict[str, Any],
    category_ids: dict[str, int],
    xml_file: str,
    dropped: _DroppedBoxes,
) -> list[dict[str, Any]]:
    annotations = []
    for found in annotation.objects:
        if found.name not in category_ids:
            raise IONError(
                f"{xml_file} has an object of class '{found.name}', but the classes are: "
                f"{', '.join(category_ids)}; correct the name, or add it to classes.txt."
            )
        bbox = _clip(found, record["width"], record["height"])
        if bbox is None:
            dropped.add(xml_file)
            continue
        annotations.append(
            {
                "bbox": bbox,
                "bbox_mode": BoxMode.XYXY_ABS,
                "category_id": category_ids[found.name],
                "difficult": found.difficult,
                "iscrowd": 0,
            }
        )
    return annotations


def _clip(found: VOCObject, width: int, height: int) -> list[float] | None:
    """The box within the image, or None if nothing with an extent is left of it."""
    x0, y0, x1, y1 = found.bbox
    x0, y0, x1, y1 = max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))
    # One pixel of exclusive width is xmin == xmax in the file: a point or a line, never an object.
    return [x0, y0, x1, y1] if x1 - x0 > 1.0 and y1 - y0 > 1.0 else None


class _DroppedBoxes:
    """Counts the boxes left out, for one warning about all of them."""

    def __init__(self) -> None:
        self.count = 0
        self.first_file: str | None = None

    def add(self, xml_file: str) -> None:
        self.count += 1
        self.first_file = self.first_file or xml_file

    def warn(self) -> None:
        if self.count:
            logger.warning(
                "Left out %d box(es) without extent inside their image, the first in %s.",
                self.count,
                self.first_file,
            )
