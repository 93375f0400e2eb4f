"""Datasets in VOC layout: their names, and what Detectron2's catalogs hold of them."""

from __future__ import annotations

import functools
import os
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import pascal_voc

from ..errors import IONError
from .dataset_names import DATASET_FORMS, absolute, path_and_split
from .voc_layout import find_classes, find_year, load_voc_layout
from .voc_split import read_split

# Splits to train on, which tools/prepare_voc.py writes: the paper's, and one without VOC 2012's
# validation images.
TRAINVAL, NO_VAL = "trainval_0712S", "train_0712S"
# Splits of Detectron2's VOC folders that it has no name for: name -> (a name it has, split).
_FURTHER = {
    f"voc_2007_{TRAINVAL}": ("voc_2007_trainval", TRAINVAL),
    f"voc_2012_{TRAINVAL}": ("voc_2012_trainval", TRAINVAL),
    f"voc_2012_{NO_VAL}": ("voc_2012_trainval", NO_VAL),
    "voc_2012_test": ("voc_2012_trainval", "test"),
}


@DATASET_FORMS.register()
def voc(name: str) -> None:
    """Register ``voc:PATH:SPLIT``, a split of a folder in VOC layout.

    Raises:
        IONError: the name has another form, or the folder lacks something.
    """
    root, split = path_and_split(name, "voc:PATH:SPLIT", "voc:~/data/VOC2007:trainval")
    read_split(root, split)
    _register(name, root, split, find_classes(root), find_year(root, split))


def register_further(name: str) -> bool:
    """Register a split of VOC 2007 or 2012 that Detectron2 has no name for; False for other names.

    Raises:
        IONError: its list is not there.
    """
    if name not in _FURTHER:
        return False
    known, split = _FURTHER[name]
    metadata = MetadataCatalog.get(known)
    root = absolute(metadata.dirname)
    path = os.path.join(root, "ImageSets", "Main", split + ".txt")
    if not os.path.isfile(path):
        make = f"`python tools/prepare_voc.py {os.path.dirname(root)}` fetches data and writes it"
        if split == "test":
            make = "put VOC 2012's test data there"
        raise IONError(f"Dataset '{name}': there is no {path}; {make}.")
    _register(name, root, split, list(metadata.thing_classes), metadata.year)
    return True


def adopt_voc(name: str) -> bool:
    """Have a dataset of Detectron2's ``register_pascal_voc`` read by our reader, with its metadata.

    Other datasets stay as they are: False is returned for them.

    Raises:
        IONError: its list is missing or empty.
    """
    load = DatasetCatalog.data[name]
    if getattr(load, "__module__", "") != pascal_voc.__name__:
        return False
    metadata = MetadataCatalog.get(name)
    root = absolute(metadata.dirname)
    read_split(root, metadata.split)
    DatasetCatalog.remove(name)
    _register(name, root, metadata.split, list(metadata.thing_classes), metadata.year)
    return True


def _register(name: str, root: str, split: str, classes: list[str], year: int) -> None:
    DatasetCatalog.register(name, functools.partial(load_voc_layout, root, split, classes))
    metadata = MetadataCatalog.get(name)
    entries: dict[str, Any] = {
        "thing_classes": classes,
        "stuff_classes": ["background", *classes],
        "evaluator_type": "pascal_voc",
        "dirname": root,
        "split": split,
        "year": year,
        "ignore_label": 255,
    }
    known = metadata.as_dict()
    metadata.set(**{key: value for key, value in entries.items() if key not in known})
