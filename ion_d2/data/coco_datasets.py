"""Datasets in COCO's format: their names, and what Detectron2's catalogs hold of them."""

from __future__ import annotations

import functools
import logging
import os
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import pycocotools.mask as mask_util
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.data.datasets.coco import convert_to_coco_dict
from detectron2.structures import BoxMode

from ion_d2.data.coco_file import Content, normalize_coco, read_categories, read_coco_file
from ion_d2.data.dataset_names import DATASET_FORMS, absolute, require_path
from ion_d2.data.keypoint_names import keypoint_metadata
from ion_d2.errors import IONError

logger = logging.getLogger(__name__)

# What is taken from an annotation beside its box, class and mask.
_KEPT = ("iscrowd", "bbox", "keypoints")
# What Detectron2 raises of dicts that are not in its format.
_WRONG_DICTS = (
    AssertionError,
    AttributeError,
    LookupError,
    NotImplementedError,
    TypeError,
    ValueError,
)


@DATASET_FORMS.register()
def coco(name: str) -> None:
    """Register ``coco:JSON:IMAGE_DIR``, an annotation file and the folder of its pictures.

    Args:
        name: the name.

    Raises:
        IONError: it has another form, or the file is not readable, or its categories are missing or
            wrong.
    """
    rest = name[len("coco:") :]
    # The first ":" after ".json" parts the two, because Windows paths hold more of them.
    match = re.fullmatch(r"(.+?\.json):(.+)", rest, re.IGNORECASE)
    json_file, image_dir = match.groups() if match else rest.rpartition(":")[::2]
    if not json_file or not image_dir:
        raise IONError(
            f"Dataset '{name}' is not of the form coco:JSON:IMAGE_DIR, for instance "
            "coco:~/data/instances_train.json:~/data/train."
        )
    json_file, image_dir = absolute(json_file), absolute(image_dir)
    require_path(name, json_file)
    require_path(name, image_dir)
    metadata = category_metadata(read_categories(json_file), json_file)
    register_coco_instances(name, metadata, json_file, image_dir)
    adopt_coco(name)


def adopt_coco(name: str) -> None:
    """Read a dataset that was registered with Detectron2's ``register_coco_instances`` our way.

    Other datasets, and those adopted before, stay as they are.

    Args:
        name: of a registered dataset.
    """
    theirs = f"{register_coco_instances.__qualname__}.<locals>"
    if not getattr(DatasetCatalog.data[name], "__qualname__", "").startswith(theirs):
        return
    metadata = MetadataCatalog.get(name)
    load = functools.partial(_load, name, metadata.json_file, metadata.image_root)
    DatasetCatalog.remove(name)
    DatasetCatalog.register(name, load)


def coco_content(name: str) -> Content:
    """What an annotation file of a dataset holds, or would hold if there were one.

    Args:
        name: a registered dataset, in COCO's format or any other.

    Returns:
        See :func:`~ion_d2.data.coco_file.normalize_coco`. It is made anew at each call: labels may
        have changed since the last.

    Raises:
        IONError: the file, or a dict of the dataset, can be used in no sensible way.
    """
    metadata = MetadataCatalog.get(name)
    json_file = os.fspath(metadata.get("json_file") or "")
    # Detectron2's evaluator writes files of this name, keeps them, and never looks at them again.
    if json_file and not json_file.endswith(f"{name}_coco_format.json"):
        return read_coco_file(json_file)
    try:
        content = convert_to_coco_dict(name)
    except _WRONG_DICTS as error:
        raise IONError(
            f"The images of dataset '{name}' are not dicts in Detectron2's format "
            f"({type(error).__name__}: {error}); correct the function that returns them."
        ) from error
    return normalize_coco(content, f"dataset '{name}'")


def category_metadata(categories: Sequence[dict[str, Any]], source: str) -> dict[str, Any]:
    """What Detectron2's MetadataCatalog holds of the classes of a file.

    Args:
        categories: normalized ones.
        source: the file, for messages.

    Returns:
        The metadata.

    Raises:
        IONError: the names of keypoints are wrong.
    """
    return {
        "thing_classes": [category["name"] for category in categories],
        "thing_dataset_id_to_contiguous_id": {c["id"]: i for i, c in enumerate(categories)},
        **keypoint_metadata(categories, source),
    }


def _load(name: str, json_file: str, image_root: str) -> list[dict[str, Any]]:
    content = read_coco_file(json_file)
    logger.info("Read %d images of %s", len(content["images"]), json_file)
    told = category_metadata(content["categories"], os.fspath(json_file))
    _complete_metadata(name, told, json_file)
    return _dataset_dicts(content, told["thing_dataset_id_to_contiguous_id"], image_root)


def _complete_metadata(name: str, told: dict[str, Any], json_file: str) -> None:
    """Enter what the file tells and the registration did not; refuse other classes."""
    metadata = MetadataCatalog.get(name)
    classes = metadata.get("thing_classes", told["thing_classes"])
    same = [unicodedata.normalize("NFC", str(c)) for c in classes] == told["thing_classes"]
    mapping = told["thing_dataset_id_to_contiguous_id"]
    if not same or metadata.get("thing_dataset_id_to_contiguous_id", mapping) != mapping:
        raise IONError(
            f"{json_file} has the categories {', '.join(told['thing_classes'])} with the ids "
            f"{', '.join(map(str, mapping))}, but '{name}' is registered with other thing_classes "
            f"({', '.join(map(str, classes))}) or thing_dataset_id_to_contiguous_id; give the same "
            "in the order of the ids, or none."
        )
    for key, value in told.items():
        if key not in metadata.as_dict():
            metadata.set(**{key: value})


def _dataset_dicts(
    content: Content, classes: dict[Any, int], image_root: str
) -> list[dict[str, Any]]:
    """Images in the order of their ids, as Detectron2 loads them."""
    dicts = {
        image["id"]: {
            "file_name": os.path.join(image_root, image["file_name"]),
            "height": image["height"],
            "width": image["width"],
            "image_id": image["id"],
        }
        for image in sorted(content["images"], key=lambda image: image["id"])
    }
    if "annotations" in content:
        for record in dicts.values():
            record["annotations"] = []
    for annotation in content.get("annotations", ()):
        image = dicts[annotation["image_id"]]
        image["annotations"].append(_dataset_annotation(annotation, image, classes))
    return list(dicts.values())


def _dataset_annotation(
    annotation: dict[str, Any], image: dict[str, Any], classes: dict[Any, int]
) -> dict[str, Any]:
    entry = {key: annotation[key] for key in _KEPT if key in annotation}
    entry.update(category_id=classes[annotation["category_id"]], bbox_mode=BoxMode.XYWH_ABS)
    if "segmentation" in annotation:
        entry["segmentation"] = mask = annotation["segmentation"]
        if isinstance(mask, dict) and isinstance(mask["counts"], list):
            entry["segmentation"] = mask_util.frPyObjects(mask, image["height"], image["width"])
    if "keypoints" in entry:
        # COCO's are numbers of pixels, Detectron2's lie in a plane whose first pixel is 0 to 1.
        points = enumerate(entry["keypoints"])
        entry["keypoints"] = [v + 0.5 if place % 3 < 2 else v for place, v in points]
    return entry
