"""A folder in Pascal VOC layout -> Detectron2 dataset dicts.

The layout: ``JPEGImages/ID.jpg`` (or .jpeg, .png, in any case), ``Annotations/ID.xml``,
``ImageSets/Main/SPLIT.txt`` with one ID a line and, where there are segmentation labels,
``SegmentationClass/ID.png``. An ID may have folders in it ("a/im0").
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from typing import Any

from detectron2.data.datasets.pascal_voc import CLASS_NAMES
from detectron2.structures import BoxMode

from ..errors import IONError
from .class_file import clean_class_name, read_class_file
from .folders import index_folder, own_names, pictures_called
from .outlines import LINE, clip
from .readable import read_size
from .reading_on import is_reading_on, read_each
from .voc_split import PathLike, read_image_ids
from .voc_xml import Annotation, VOCObject, parse_annotation

logger = logging.getLogger(__name__)

_IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png")  # first one wins where an ID has several


def load_voc_layout(root: PathLike, split: str, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Load the images of one split with their boxes, of classes in the order of their ids.

    Boxes are clipped to the image. Those that then have no extent (``xmin >= xmax`` or
    ``ymin >= ymax`` in the file) are left out, with one warning for all. Images without objects and
    objects marked difficult stay.

    Returns:
        One Detectron2 dataset dict an image, in the order of the split, boxes as 0-based
        ``XYXY_ABS`` with exclusive right and bottom; ``sem_seg_file_name`` where there is a label.
        Without "annotations", and with a warning, if none of the images has an annotation file or
        the split is VOC 2012's test set.

    Raises:
        IONError: the folder lacks something or has something broken, or a class is unknown.
    """
    root = os.fspath(root)
    images = index_folder(os.path.join(root, "JPEGImages"), _IMAGE_EXTENSIONS)
    image_ids = read_image_ids(root, split, images)
    labels = _files_of(image_ids, _index_if_there(root, "SegmentationClass", ".png"))
    xml_files = _annotation_files(root, split, image_ids, class_names)
    category_ids = {clean_class_name(name): index for index, name in enumerate(class_names)}
    without_extent: list[str | None] = []

    def load(image_id: str) -> dict[str, Any]:
        record = {"file_name": images[image_id], "image_id": image_id}
        if image_id in labels:
            record["sem_seg_file_name"] = labels[image_id]
        xml_file = xml_files.get(image_id)
        without_extent.extend([xml_file] * _annotate(record, xml_file, category_ids))
        return record

    dicts = read_each(image_ids, load)
    if without_extent:
        text = "Left out %d box(es) without extent inside their image, the first in %s."
        logger.warning(text, len(without_extent), without_extent[0])
    return dicts


def find_year(root: PathLike, split: str) -> int:
    """The year, 2007 or 2012, by whose average precision a folder in VOC layout is evaluated.

    The folder's name, or else ``<folder>`` in the split's first annotation, tells it; 2012 by
    default.
    """
    root = os.path.abspath(root)
    annotated = _index_if_there(root, "Annotations", ".xml")
    images = index_folder(os.path.join(root, "JPEGImages"), _IMAGE_EXTENSIONS)
    image_ids = read_image_ids(root, split, images)
    first = [*_files_of(image_ids, annotated).values()][:1]
    named = [each.folder for each in read_each(first, parse_annotation)]
    for text in (os.path.basename(root), *named):
        years = re.findall("2007|2012", text)
        if years:
            return int(years[-1])
    return 2012


def find_classes(root: PathLike) -> list[str]:
    """The classes of a folder in VOC layout.

    They are the names in ``classes.txt`` of the folder or else of its parent, or else the sorted
    names of all objects in ``Annotations`` (in its subfolders, if no file lies outside of them).

    Raises:
        IONError: no class was found, ``classes.txt`` names one twice, or an annotation is broken.
    """
    root = os.path.abspath(root)
    for folder in (root, os.path.dirname(root)):
        path = os.path.join(folder, "classes.txt")
        if os.path.isfile(path):
            return read_class_file(path)
    files = _index_if_there(root, "Annotations", ".xml")
    # A subfolder beside files may be a copy, or of another task.
    direct = [path for image_id, path in files.items() if "/" not in image_id]
    chosen = direct or files.values()
    names = {found.name for each in read_each(chosen, parse_annotation) for found in each.objects}
    if not names:
        raise IONError(
            f"No file in {os.path.join(root, 'Annotations')} holds an object; name the classes in "
            f"{os.path.join(root, 'classes.txt')}, one a line."
        )
    return sorted(names)  # which puts VOC's 20 classes into VOC's order


def _index_if_there(root: str, name: str, extension: str) -> dict[str, str]:
    folder = os.path.join(root, name)
    return index_folder(folder, (extension,)) if os.path.isdir(folder) else {}


def _files_of(image_ids: Sequence[str], index: dict[str, str]) -> dict[str, str]:
    """The label of each image that has one; those of pictures in subfolders may lie in none."""
    own = own_names(pictures_called(index, image_ids))
    return {image_ids[place]: index[name] for place, name in own.items()}


def _annotation_files(
    root: str, split: str, image_ids: Sequence[str], class_names: Sequence[str]
) -> dict[str, str]:
    """The annotation file of each image; none at all if the labels of the split are withheld."""
    found = _files_of(image_ids, _index_if_there(root, "Annotations", ".xml"))
    missing = [image_id for image_id in image_ids if image_id not in found]
    if not missing:
        return found
    # The files that VOC 2012's test set has annotate other tasks, partly.
    is_2012 = "2012" in os.path.basename(os.path.abspath(root))
    withheld = is_2012 and split == "test" and list(class_names) == list(CLASS_NAMES)
    if found and not withheld:
        if is_reading_on():
            return found
        first = os.path.join(root, "Annotations", missing[0] + ".xml")
        raise IONError(
            f"{len(missing)} of the {len(image_ids)} images of split '{split}' have no annotation "
            f"file, the first is {first}; restore it, or take its image out of the split."
        )
    text = "Split '%s' of %s has no annotations, so that it gives no average precision."
    logger.warning(text, split, root)
    return {}


def _annotate(record: dict[str, Any], xml_file: str | None, category_ids: dict[str, int]) -> int:
    """Add size and objects to a dict, and count the boxes without extent, which are left out."""
    annotation = parse_annotation(xml_file) if xml_file else Annotation(None, None, [])
    record["height"], record["width"] = annotation.height, annotation.width
    if annotation.height is None or annotation.width is None:
        record["height"], record["width"] = read_size(record["file_name"])
    if xml_file is None:
        return 0
    entries = read_each(
        annotation.objects, lambda found: _entry(found, record, category_ids, xml_file)
    )
    record["annotations"] = [entry for entry in entries if entry["bbox"]]
    return len(entries) - len(record["annotations"])


def _entry(
    found: VOCObject, record: dict[str, Any], category_ids: dict[str, int], xml_file: str
) -> dict[str, Any]:
    """An object in Detectron2's format; without extent, its "bbox" is None."""
    if found.name not in category_ids:
        raise IONError(
            f"{xml_file} has an object of class '{found.name}', but the classes are: "
            f"{', '.join(category_ids)}; correct the name, or add it to classes.txt.",
            rule="unknown-class",
        )
    corners = (found.bbox[:2], found.bbox[2:])
    clipped, cut = clip(corners, (record["height"], record["width"]))
    # One pixel of exclusive width is xmin == xmax in the file: a point or a line, never an object.
    has_extent = is_reading_on() or (clipped[1] - clipped[0] > LINE).all()
    return {
        "bbox": clipped.ravel().tolist() if has_extent else None,
        "bbox_mode": BoxMode.XYXY_ABS,
        "category_id": category_ids[found.name],
        "difficult": found.difficult,
        "iscrowd": 0,
        **({"cut": True} if cut else {}),
    }
