"""What tools/check_dataset.py finds in labels: the readers' refusals, boxes, classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from dataset_rules import Finding
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from ion_d2.data import add_label_files, class_names, ensure_registered
from ion_d2.data.label_faults import Objects, collect_objects, find_box_faults
from ion_d2.data.reading_on import reading_on
from ion_d2.errors import IONError


@dataclass
class Dataset:
    """A dataset with all that its readers could make sense of.

    Attributes:
        name: as in DATASETS.TRAIN.
        records: Detectron2's dataset dicts, boxes as the files have them.
        classes: their names.
        refused: what the readers refused.
        use_difficult: whether a training takes objects that are marked difficult.
        objects: of all records.
    """

    name: str
    records: list[dict[str, Any]] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    refused: list[IONError] = field(default_factory=list)
    use_difficult: bool = False

    def __post_init__(self) -> None:
        found = collect_objects(self.records, use_difficult=self.use_difficult)
        self.objects: Objects = found
        beyond = range(len(self.classes), found.category.max(initial=-1) + 1)
        self.classes += [f"class {label}" for label in beyond]

    @property
    def counts(self) -> Counter[str]:
        """How many objects each class has."""
        numbers = np.bincount(self.objects.category, minlength=len(self.classes)).tolist()
        return Counter(dict(zip(self.classes, numbers)))

    @property
    def learned_classes(self) -> set[str]:
        """The classes with an object that a training takes."""
        labels = np.unique(self.objects.category[self.objects.learned])
        return {self.classes[label] for label in labels}

    @property
    def empty(self) -> list[str]:
        """The labeled pictures without a box."""
        return [r["file_name"] for r in self.records if r.get("annotations") == []]


def read_dataset(name: str, cfg: CfgNode | None) -> Dataset:
    """Read a dataset, with the further label maps of a config; whatever is wrong is collected."""
    records: list[dict[str, Any]] = []
    with reading_on() as refused:
        try:
            ensure_registered([name])
            records = DatasetCatalog.get(name)
            class_names([name])  # refuses names that a training cannot use
            if cfg is not None:
                records = add_label_files(records, cfg.DATASETS.SEM_SEG_DIRS)
        except IONError as error:
            refused.append(IONError(str(error), rule=error.rule or "unusable-dataset"))
    classes = MetadataCatalog.get(name).get("thing_classes") or []
    once = {str(error): error for error in refused}  # some files are read more than once
    use_difficult = cfg is not None and cfg.DATASETS.USE_DIFFICULT
    return Dataset(name, records, list(classes), list(once.values()), use_difficult)


def find_label_faults(dataset: Dataset) -> Iterator[Finding]:
    """Faults of a dataset that show without its pictures."""
    for error in dataset.refused:
        yield Finding(error.rule or "unusable-label", dataset.name, str(error))
    yield from _find_list_faults(dataset)
    yield from _find_left_out(dataset)
    for rule, faulty in find_box_faults(dataset.objects).items():
        yield from show_objects(rule, dataset, faulty)


def _find_list_faults(dataset: Dataset) -> Iterator[Finding]:
    names = [record["file_name"] for record in dataset.records]
    for name, count in Counter(names).items():
        if count > 1:
            yield Finding("listed-twice", dataset.name, f"{name}, {count} times", (name,))
    for name in dataset.empty:
        yield Finding("no-boxes", dataset.name, name, (name,))


def _find_left_out(dataset: Dataset) -> Iterator[Finding]:
    """All objects that a training leaves out as crowds or as difficult, in one finding."""
    objects = dataset.objects
    left_out = np.flatnonzero(~objects.learned)
    if not len(left_out):
        return
    records = [dataset.records[index] for index in objects.image[left_out]]
    found = [r["annotations"][n] for r, n in zip(records, objects.number[left_out])]
    crowds = sum(bool(each.get("iscrowd", 0)) for each in found)
    counts = f"{crowds:,} crowds, {len(found) - crowds:,} difficult"
    name = records[0]["file_name"]
    place = f"{len(found):,} of {len(objects.box):,} objects ({counts}), the first in {name}"
    rule = "not-learned" if objects.learned.any() else "nothing-learned"
    yield Finding(
        rule, dataset.name, place, (name,), (int(objects.number[left_out[0]]),), records[0]
    )


def show_objects(rule: str, dataset: Dataset, faulty: np.ndarray) -> Iterator[Finding]:
    """A finding for each object that is True in ``faulty``, with its place and its box."""
    objects = dataset.objects
    for index in np.flatnonzero(faulty):
        record = dataset.records[objects.image[index]]
        name = record["file_name"]
        corners = ", ".join(f"{value:g}" for value in objects.box[index].round(1))
        label = dataset.classes[objects.category[index]]
        place = f"{name}: {label} at ({corners})"
        yield Finding(rule, dataset.name, place, (name,), (int(objects.number[index]),), record)


def find_unlabeled(datasets: Sequence[Dataset]) -> Iterator[Finding]:
    """Pictures without labels, and datasets in which nothing is to be learned.

    Beside a labeled dataset, another may be one without labels as a whole, for a server to judge.
    """
    datasets = [dataset for dataset in datasets if dataset.records]
    bare = {d.name: [r["file_name"] for r in d.records if "annotations" not in r] for d in datasets}
    labeled = [d for d in datasets if len(bare[d.name]) < len(d.records)]
    for dataset in datasets:
        names = bare[dataset.name]
        if labeled and len(names) == len(dataset.records):
            place = f"{len(names):,} pictures, the first {names[0]}"
            yield Finding("unlabeled", dataset.name, place, (names[0],))
        else:
            yield from (Finding("missing-label", dataset.name, name, (name,)) for name in names)
    if not any(len(dataset.objects.box) for dataset in labeled):
        for dataset in labeled:
            place = f"no object in {len(dataset.records):,} pictures"
            yield Finding("nothing-learned", dataset.name, place)


def find_class_faults(datasets: Sequence[Dataset]) -> Iterator[Finding]:
    """Classes that differ between datasets, or of which objects are missing."""
    datasets = [dataset for dataset in datasets if dataset.records]
    for dataset in datasets[1:]:
        if dataset.classes != datasets[0].classes:
            first, other = (", ".join(d.classes) for d in (datasets[0], dataset))
            place = f"{first} in {datasets[0].name}, but {other}"
            yield Finding("different-classes", dataset.name, place)
    labeled = [dataset for dataset in datasets if dataset.objects.learned.any()]
    learned = {dataset.name: dataset.learned_classes for dataset in labeled}
    for name in dict.fromkeys(name for dataset in labeled for name in dataset.classes):
        without = [dataset for dataset, classes in learned.items() if name not in classes]
        if len(without) == len(learned):
            yield Finding("unused-class", ", ".join(learned), name)
        elif without:
            yield Finding("one-split-class", ", ".join(without), f"{name} has no object")
