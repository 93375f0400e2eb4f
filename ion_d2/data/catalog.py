"""Dataset names: Detectron2's own, and those of the registry of forms."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Sequence

from detectron2.data import DatasetCatalog, MetadataCatalog

from ..errors import IONError
from . import coco_datasets, detections, labelme, yolo  # noqa: F401 (register themselves)
from .class_file import check_class_names
from .dataset_names import DATASET_FORMS, absolute, require_path
from .registered_datasets import adopt_function
from .voc_datasets import adopt_voc, register_further

_FORMS = (
    "a dataset is voc:PATH:SPLIT (a folder in VOC layout), coco:JSON:IMAGE_DIR, "
    "yolo:DATA.YAML:SPLIT, labelme:DIR, detections:NAME.json, or a name registered with Detectron2"
)


def ensure_registered(names: Sequence[str]) -> None:
    """Make datasets available in Detectron2's catalogs, and check that their files are there.

    ``voc:PATH:SPLIT``, ``coco:JSON:IMAGE_DIR``, ``yolo:DATA.YAML:SPLIT``, ``labelme:DIR`` and the
    other forms of :data:`~ion_d2.data.dataset_names.DATASET_FORMS` are registered when first seen,
    and so are ``voc_2012_test`` and the lists of tools/prepare_voc.py
    (``voc_2007_trainval_0712S``, ``voc_2012_trainval_0712S``, ``voc_2012_train_0712S``).

    What is registered already keeps its metadata. Datasets of Detectron2's ``register_pascal_voc``
    and ``register_coco_instances`` are read by our readers, and the dicts that other functions
    return are completed and checked (see :mod:`~ion_d2.data.registered_datasets`).

    Raises:
        IONError: a name is unknown, or its folder or file is missing or broken.
    """
    for name in names:
        if name not in DatasetCatalog:
            _register(name)
        metadata = MetadataCatalog.get(name).as_dict()
        for key in ("dirname", "json_file", "image_root"):
            path = metadata.get(key)
            elsewhere = "://" in str(path) or coco_datasets.is_of_evaluator(str(path), name)
            if path and not elsewhere:
                require_path(name, absolute(path))
        if not adopt_voc(name):
            coco_datasets.adopt_coco(name)
            adopt_function(name)


def _register(name: str) -> None:
    form = name.partition(":")[0]
    if ":" in name and form in DATASET_FORMS:
        DATASET_FORMS.get(form)(name)
    elif not register_further(name):
        near = difflib.get_close_matches(name, DatasetCatalog.list(), n=3)
        hint = f", did you mean {' or '.join(near)}" if near else ""
        raise IONError(f"There is no dataset '{name}'{hint}; {_FORMS}.")


def evaluator_type(name: str) -> str | None:
    """How a registered dataset is to be evaluated.

    It is the "evaluator_type" of its metadata. Where it has none: "coco" if its objects have masks
    or keypoints, "pascal_voc" if they are boxes, or if it is a folder in VOC layout; None if no
    picture has annotations.
    """
    metadata = MetadataCatalog.get(name)
    if metadata.get("evaluator_type") is not None:
        return metadata.evaluator_type
    if metadata.get("dirname") and metadata.get("split"):
        return "pascal_voc"
    return _type_of_objects(DatasetCatalog.data[name])


@functools.cache
def _type_of_objects(load: Callable[[], list[dict]]) -> str | None:
    """How what a dataset's function returns is to be evaluated; remembered, as it may take long."""
    records = [record for record in load() if "annotations" in record]
    if not records:
        return None
    objects = [annotation for record in records for annotation in record["annotations"]]
    return "coco" if any({"segmentation", "keypoints"} & set(o) for o in objects) else "pascal_voc"


def class_names(names: Sequence[str]) -> list[str]:
    """The classes that one or more datasets share, in the order of their ids.

    Raises:
        IONError: no dataset is given, one has no classes, or two differ.
    """
    ensure_registered(names)
    if not names:
        raise IONError("DATASETS.TRAIN and DATASETS.TEST name no dataset; " + _FORMS + ".")
    first = registered_classes(names[0])
    for name in names[1:]:
        other = registered_classes(name)
        if other != first:
            raise IONError(
                f"Datasets '{names[0]}' and '{name}' have different classes ({', '.join(first)} "
                f"against {', '.join(other)}); give both the same in the same order."
            )
    return first


def registered_classes(name: str) -> list[str]:
    """The classes of a dataset by its metadata; IONError if it names none, even once loaded."""
    metadata = MetadataCatalog.get(name)
    if not metadata.get("thing_classes"):
        DatasetCatalog.get(name)  # some datasets know their classes only once they are loaded
    classes = metadata.get("thing_classes")
    if not classes:
        raise IONError(f"Dataset '{name}' names no classes; set thing_classes in its metadata.")
    return check_class_names(classes, f"Dataset '{name}' (thing_classes)")
