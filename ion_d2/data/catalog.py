"""Dataset names: Detectron2's own, ``voc:PATH:SPLIT``, ``coco:JSON:IMAGE_DIR`` and "07+12+S"."""

from __future__ import annotations

import difflib
import functools
import os
from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from ion_d2.data.coco_datasets import adopt_coco, register_coco, split_coco_name
from ion_d2.data.voc_layout import find_classes, load_voc_layout, read_split
from ion_d2.data.voc_lists import NO_VAL, TRAINVAL
from ion_d2.errors import IONError

_FORMS = (
    "a dataset is voc:PATH:SPLIT (a folder in VOC layout), coco:JSON:IMAGE_DIR, or a name "
    "registered with Detectron2"
)
# Lists in the folders of Detectron2's VOC datasets: name -> (a dataset of that folder, split).
_PREPARED = {
    f"voc_2007_{TRAINVAL}": ("voc_2007_trainval", TRAINVAL),
    f"voc_2012_{TRAINVAL}": ("voc_2012_trainval", TRAINVAL),
    f"voc_2012_{NO_VAL}": ("voc_2012_trainval", NO_VAL),
}


def ensure_registered(names: Sequence[str]) -> None:
    """Make every dataset available in Detectron2's catalogs and check that its files are there.

    ``voc:PATH:SPLIT`` and ``coco:JSON:IMAGE_DIR`` (``~`` and paths relative to the working folder
    are understood) are registered when first seen, and so are ``voc_2007_trainval_0712S``,
    ``voc_2012_trainval_0712S`` and ``voc_2012_train_0712S``, the lists of tools/prepare_voc.py.
    Detectron2's VOC datasets keep name, folder and classes but are read by ION's loader, which
    knows difficult objects and segmentation labels.

    Args:
        names: dataset names as in DATASETS.TRAIN.

    Raises:
        IONError: a name is unknown, or its folder or file is missing or broken.
    """
    for name in names:
        if name in DatasetCatalog:
            _adopt(name)
        elif name.startswith("voc:"):
            _register_voc_name(name)
        elif name.startswith("coco:"):
            _register_coco_name(name)
        elif name in _PREPARED:
            _register_prepared(name)
        else:
            near = difflib.get_close_matches(name, DatasetCatalog.list(), n=3)
            hint = f", did you mean {' or '.join(near)}" if near else ""
            raise IONError(f"There is no dataset '{name}'{hint}; {_FORMS}.")


def class_names(names: Sequence[str]) -> list[str]:
    """The classes of the datasets, in the order of their ids.

    Args:
        names: one or more dataset names; they are registered where needed.

    Returns:
        The class names that all the datasets have.

    Raises:
        IONError: no dataset is given, one has no classes, or two differ.
    """
    ensure_registered(names)
    if not names:
        raise IONError("DATASETS.TRAIN and DATASETS.TEST name no dataset; " + _FORMS + ".")
    first = _classes_of(names[0])
    for name in names[1:]:
        other = _classes_of(name)
        if other != first:
            raise IONError(
                f"Datasets '{names[0]}' and '{name}' have different classes ({', '.join(first)} "
                f"against {', '.join(other)}); give both the same classes in the same order, for "
                "instance by one classes.txt."
            )
    return first


def check_num_classes(cfg: CfgNode, names: Sequence[str] | None = None) -> None:
    """Make the config's numbers of classes agree with the data.

    MODEL.ROI_HEADS.NUM_CLASSES is K, and MODEL.SEM_SEG_HEAD.NUM_CLASSES, where
    MODEL.SEG_REGULARIZER_ON, K + 1 (the background). A 0 is replaced by the number from the data.

    Args:
        cfg: a config that is not frozen; changed in place.
        names: the datasets to look at; None means DATASETS.TRAIN and DATASETS.TEST.

    Raises:
        IONError: a number contradicts the data, or the datasets have different classes.
    """
    names = [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST] if names is None else list(names)
    classes = class_names(names)
    told = f"dataset '{names[0]}' has {len(classes)} classes ({', '.join(classes)})"
    model = cfg.MODEL
    _settle(model.ROI_HEADS, "MODEL.ROI_HEADS.NUM_CLASSES", len(classes), told)
    if model.SEG_REGULARIZER_ON:
        told += " and the background"
        _settle(model.SEM_SEG_HEAD, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", len(classes) + 1, told)


def _settle(node: CfgNode, key: str, number: int, told: str) -> None:
    if node.NUM_CLASSES not in (0, number):
        raise IONError(
            f"{key} is {node.NUM_CLASSES}, but {told}; set it to {number}, or to 0 to take it from "
            "the data."
        )
    node.NUM_CLASSES = number


def _classes_of(name: str) -> list[str]:
    metadata = MetadataCatalog.get(name)
    if metadata.get("thing_classes") is None:
        # Some datasets tell their classes only once they are loaded.
        DatasetCatalog.get(name)
    classes = metadata.get("thing_classes")
    if classes is None:
        raise IONError(
            f"Dataset '{name}' does not tell its classes; set thing_classes in its MetadataCatalog "
            "entry."
        )
    return list(classes)


def _register_voc_name(name: str) -> None:
    path, _, split = name[len("voc:") :].rpartition(":")
    if not path or not split:
        raise IONError(
            f"Dataset '{name}' is not of the form voc:PATH:SPLIT, for instance "
            "voc:~/data/VOC2007:trainval."
        )
    root = _absolute(path)
    _require(name, root)
    read_split(root, split)
    _register_voc(name, root, split, find_classes(root))


def _register_prepared(name: str) -> None:
    known, split = _PREPARED[name]
    metadata = MetadataCatalog.get(known)
    root = _absolute(metadata.dirname)
    path = os.path.join(root, "ImageSets", "Main", split + ".txt")
    if not os.path.isfile(path):
        raise IONError(
            f"Dataset '{name}': there is no {path}; write it with `python tools/prepare_voc.py "
            f"{os.path.dirname(root)}`, which also fetches what is missing."
        )
    _register_voc(name, root, split, list(metadata.thing_classes), year=metadata.year)


def _register_voc(name: str, root: str, split: str, classes: list[str], **metadata: Any) -> None:
    DatasetCatalog.register(name, functools.partial(load_voc_layout, root, split, classes))
    MetadataCatalog.get(name).set(
        thing_classes=classes,
        stuff_classes=["background", *classes],
        evaluator_type="ion_voc",
        dirname=root,
        split=split,
        ignore_label=255,
        **metadata,
    )


def _register_coco_name(name: str) -> None:
    json_file, image_dir = map(_absolute, split_coco_name(name))
    _require(name, json_file)
    _require(name, image_dir)
    register_coco(name, json_file, image_dir)


def _adopt(name: str) -> None:
    """Check the files of a registered dataset; give Detectron2's VOC ones to ION's loader."""
    metadata = MetadataCatalog.get(name).as_dict()
    for key in ("dirname", "json_file", "image_root"):
        path = metadata.get(key)
        if path and "://" not in path:
            _require(name, _absolute(path))
    if metadata.get("evaluator_type") == "coco" and metadata.get("json_file"):
        adopt_coco(name)
    if metadata.get("evaluator_type") != "pascal_voc":
        return
    root, split = _absolute(metadata["dirname"]), metadata["split"]
    read_split(root, split)
    replaced = ("name", "thing_classes", "stuff_classes", "evaluator_type", "dirname", "split")
    kept = {k: v for k, v in metadata.items() if k not in (*replaced, "ignore_label")}
    # An attribute of Metadata cannot take another value, so the entry is made anew.
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)
    _register_voc(name, root, split, list(metadata["thing_classes"]), **kept)


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


def _require(name: str, path: str) -> None:
    if os.path.exists(path):
        return
    advice = "correct the path"
    if not name.startswith(("voc:", "coco:")):
        advice = (
            "put the data there, or set the environment variable DETECTRON2_DATASETS to the folder "
            "that holds Detectron2's datasets"
        )
    raise IONError(f"Dataset '{name}': {path} does not exist; {advice}.")
