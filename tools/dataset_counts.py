"""How many pictures, objects and boxes of which size datasets have, for tools/check_dataset.py."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from dataset_labels import Dataset
from detectron2.config import CfgNode

from ion_d2.data.label_faults import Objects, training_scale
from ion_lab.report import Table

_PERCENTILES = (0, 5, 25, 50, 75, 95, 100)


def count_tables(datasets: Sequence[Dataset], cfg: CfgNode | None) -> list[Table]:
    """Pictures, objects of each class and sizes of boxes, a column a dataset."""
    names = [dataset.name for dataset in datasets]
    classes = dict.fromkeys(name for dataset in datasets for name in dataset.classes)
    rows = [
        ["pictures", *(f"{len(d.records):,}" for d in datasets)],
        ["without a box", *(f"{len(d.empty):,}" for d in datasets)],
        ["objects", *(f"{len(d.objects.box):,}" for d in datasets)],
        *([name, *(f"{d.counts[name]:,}" for d in datasets)] for name in classes),
    ]
    told = "Percentiles of the sides of boxes (square roots of their areas), in pixels"
    tables = [Table("Counts", ["", *names], rows)]
    tables.append(Table(told, ["", *names], _side_rows([_sides(d.objects) for d in datasets])))
    if cfg is not None:
        shortest = max(cfg.INPUT.MIN_SIZE_TRAIN)
        sides = [
            _sides(d.objects) * training_scale(d.objects, cfg, shortest)[:, 0] for d in datasets
        ]
        resized = f"The same, resized as for a training (INPUT.MIN_SIZE_TRAIN {shortest})"
        tables.append(Table(resized, ["", *names], _side_rows(sides)))
    return tables


def _side_rows(sides: Sequence[np.ndarray]) -> list[list[str]]:
    return [
        [f"{percent}%", *(f"{np.percentile(s, percent):.0f}" if len(s) else "" for s in sides)]
        for percent in _PERCENTILES
    ]


def _sides(objects: Objects) -> np.ndarray:
    return np.sqrt((objects.box[:, 2:] - objects.box[:, :2]).clip(0).prod(axis=1))
