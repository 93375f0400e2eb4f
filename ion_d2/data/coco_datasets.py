"""Datasets in COCO's format: their names, and their entries in Detectron2's catalogs."""

from __future__ import annotations

import functools
import logging
import os
import re
from collections.abc import Sequence
from typing import Any

import pycocotools.mask as mask_util
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.data.datasets.coco import convert_to_coco_dict
from detectron2.structures import BoxMode

from ..errors import IONError
from .coco_file import Content, normalize_coco, read_categories, read_coco_file
from .dataset_names import DATASET_FORMS, absolute, require_path
from .folders import composed, named_file
from .keypoint_names import keypoint_metadata

logger = logging.getLogger(__name__)

# What is taken from an annotation beside its class and mask.
_KEPT = ("iscrowd", "bbox", "keypoints")
# What Detectron2 raises for dicts that are not in its format.
_WRONG_DICTS: tuple[type[Exception], ...] = (AssertionError, AttributeError, LookupError)
_WRONG_DICTS += (NotImplementedError, TypeError, ValueError)


@DATASET_FORMS.register()
def coco(name: str) -> None:
    """Register ``coco:JSON:IMAGE_DIR``, an annotation file and the folder of its pictures.

    Raises:
        IONError: the name has another form, or the file is not readable or has wrong categories.
    """
    rest = name[len("coco:") :]
    # The first ":" after ".json" separates the two, because Windows paths hold more of them.
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
    """Let our checked reader load a dataset registered with ``register_coco_instances``.

    Other datasets, and those adopted before, stay as they are.
    """
    theirs = f"{register_coco_instances.__qualname__}.<locals>"
    if not getattr(DatasetCatalog.data[name], "__qualname__", "").startswith(theirs):
        return
    metadata = MetadataCatalog.get(name)
    load = functools.partial(_load, name, *map(absolute, (metadata.json_file, metadata.image_root)))
    DatasetCatalog.remove(name)
    DatasetCatalog.register(name, load)


def is_of_evaluator(json_file: str, name: str) -> bool:
    """Whether Detectron2's evaluator wrote a dataset's file, which it never looks at again."""
    return json_file.endswith(f"{name}_coco_format.json")


def coco_content(name: str) -> Content:
    """The content of a dataset's annotation file, or of the file that any other would have.

    It is read anew at each call, because labels may have changed since the last; for its form see
    :func:`~ion_d2.data.coco_file.normalize_coco`. Its categories are the dataset's classes, in
    their order; others of the file are left out. Objects marked difficult are crowds.

    Raises:
        IONError: the file, or a dict of the dataset, cannot be used.
    """
    metadata = MetadataCatalog.get(name)
    json_file = os.fspath(metadata.get("json_file") or "")
    if json_file and not is_of_evaluator(json_file, name):
        return _of_classes(read_coco_file(json_file), name)
    try:
        content = _converted(name)
    except _WRONG_DICTS as error:
        raise IONError(
            f"The images of dataset '{name}' are not dicts in Detectron2's format "
            f"({type(error).__name__}: {error}); correct the function that returns them."
        ) from error
    return _of_classes(normalize_coco(content, f"dataset '{name}'"), name)


def _converted(name: str) -> Content:
    """What Detectron2 makes of a dataset in which difficult objects are crowds."""
    given = DatasetCatalog.get(name)
    records = [_with_crowds(record) for record in given]
    metadata = MetadataCatalog.get(name).as_dict()
    marked = f"{name}, difficult objects as crowds"
    DatasetCatalog.register(marked, lambda: records)
    MetadataCatalog.get(marked).set(**{**metadata, "name": marked})
    try:
        content: Content = convert_to_coco_dict(marked)
        del content["info"]["date_created"]  # today: the same labels are the same content
        if any("annotations" in record for record in given):
            content.setdefault("annotations", [])  # which Detectron2 leaves out if there are none
        return content
    finally:
        DatasetCatalog.remove(marked)
        MetadataCatalog.remove(marked)


def _with_crowds(record: dict[str, Any]) -> dict[str, Any]:
    annotations = [
        {**found, "iscrowd": int(found.get("iscrowd", 0)) | bool(found.get("difficult"))}
        for found in record.get("annotations", ())
    ]
    return {**record, "annotations": annotations}


def _of_classes(content: Content, name: str) -> Content:
    """Bring the categories into the order of the dataset's classes; leave others out."""
    categories = {category["id"]: category for category in content["categories"]}
    numbers = _class_numbers(categories, name)
    ids = {number: category_id for category_id, number in numbers.items()}
    if sorted(ids) != list(range(len(ids))) or not categories.keys() >= {*ids.values()}:
        raise IONError(
            f"The thing_dataset_id_to_contiguous_id of dataset '{name}' ({numbers}) must number "
            f"ids of its categories ({', '.join(map(str, categories))}) from 0 on; correct it."
        )
    chosen = [categories[ids[number]] for number in range(len(ids))]
    content = {**content, "categories": chosen}
    if "annotations" in content:
        content["annotations"] = [
            {**annotation, "category_id": chosen[numbers[annotation["category_id"]]]["id"]}
            for annotation in content["annotations"]
            if annotation["category_id"] in numbers
        ]
    return content


def _class_numbers(categories: dict[Any, dict[str, Any]], name: str) -> dict[Any, int]:
    """The class of each category's id: as registered, or else by name, or else in order."""
    metadata = MetadataCatalog.get(name)
    own = metadata.get("thing_dataset_id_to_contiguous_id")
    if own:
        return dict(own)
    ids = {category["name"]: category_id for category_id, category in categories.items()}
    classes = [composed(str(each)) for each in metadata.get("thing_classes") or ids]
    in_order = [ids[each] for each in classes] if ids.keys() >= {*classes} else ids.values()
    return {category_id: number for number, category_id in enumerate(in_order)}


def category_metadata(categories: Sequence[dict[str, Any]], source: str) -> dict[str, Any]:
    """The entries of Detectron2's MetadataCatalog for the (normalized) categories of a file.

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
    found = category_metadata(content["categories"], os.fspath(json_file))
    _complete_metadata(name, found, json_file)
    return _dataset_dicts(content, found["thing_dataset_id_to_contiguous_id"], image_root)


def _complete_metadata(name: str, found: dict[str, Any], json_file: str) -> None:
    """Enter what the file has and the registration did not; refuse other classes."""
    metadata, mapping = MetadataCatalog.get(name), found["thing_dataset_id_to_contiguous_id"]
    classes = metadata.get("thing_classes", found["thing_classes"])
    same = [composed(str(each)) for each in classes] == found["thing_classes"]
    if not same or metadata.get("thing_dataset_id_to_contiguous_id", mapping) != mapping:
        raise IONError(
            f"{json_file} has the categories {', '.join(found['thing_classes'])} with the ids "
            f"{', '.join(map(str, mapping))}, but '{name}' is registered with other thing_classes "
            f"({', '.join(map(str, classes))}) or thing_dataset_id_to_contiguous_id; give the same "
            "in the order of the ids, or none."
        )
    metadata.set(**{k: value for k, value in found.items() if k not in metadata.as_dict()})


def _dataset_dicts(
    content: Content, classes: dict[Any, int], image_root: str
) -> list[dict[str, Any]]:
    """Images in the order of their ids, as Detectron2 loads them."""
    labeled, dicts = "annotations" in content, {}
    for image in sorted(content["images"], key=lambda image: image["id"]):
        file_name = named_file(image_root, image["file_name"])
        size = {"height": image["height"], "width": image["width"]}
        dicts[image["id"]] = {"file_name": file_name, **size, "image_id": image["id"]}
        if labeled:
            dicts[image["id"]]["annotations"] = []
    for annotation in content.get("annotations", ()):
        record = dicts[annotation["image_id"]]
        record["annotations"].append(_dataset_annotation(annotation, record, classes))
    return list(dicts.values())


def _dataset_annotation(
    annotation: dict[str, Any], record: dict[str, Any], classes: dict[Any, int]
) -> dict[str, Any]:
    entry: dict[str, Any] = {k: annotation[k] for k in _KEPT if k in annotation}
    entry.update(category_id=classes[annotation["category_id"]], bbox_mode=BoxMode.XYWH_ABS)
    if "segmentation" in annotation:
        entry["segmentation"] = mask = annotation["segmentation"]
        if isinstance(mask, dict) and isinstance(mask["counts"], list):
            entry["segmentation"] = mask_util.frPyObjects(mask, record["height"], record["width"])
    if "keypoints" in entry:
        # COCO's are numbers of pixels; Detectron2's lie in a plane whose first pixel is 0 to 1.
        points = enumerate(entry["keypoints"])
        entry["keypoints"] = [v + 0.5 if place % 3 < 2 else v for place, v in points]
    return entry
