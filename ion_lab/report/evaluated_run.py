"""What a run's evaluation left in its folder: detections and figures of a test dataset."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Hashable, Iterator
from typing import Any, NamedTuple

import numpy as np
from detectron2.config import CfgNode

from ion_d2.data import plain_files
from ion_d2.data.catalog import class_names, evaluator_type
from ion_d2.data.coco_datasets import coco_content
from ion_d2.data.coco_file import Content
from ion_d2.data.run_images import test_dicts
from ion_d2.errors import IONError
from ion_d2.evaluation import evaluation_folder
from ion_d2.evaluation.image_boxes import Detections, GroundTruth, ground_truth_from_dict

_VOC_DETECTIONS, _COCO_DETECTIONS = "detections.json", "coco_instances_results.json"
# What to do about results that are not those of the run.
STALE = "evaluate again with train_net.py --eval-only"


class Outcome(NamedTuple):
    """Labels and detections of a dataset; the dicts are by image id."""

    dataset: str
    folder: str  # where the evaluation wrote
    class_names: list[str]
    records: dict[Hashable, dict[str, Any]]
    truth: dict[Hashable, GroundTruth]
    found: dict[Hashable, Detections] | None  # of every image; None if it was not evaluated
    content: Content | None  # of the annotation file in COCO's format, normalized, if there is one
    raw: list[dict[str, Any]]  # the detections as COCO's format has them, where the dataset does

    @property
    def labeled(self) -> bool:
        """Whether the dataset has annotations."""
        return any("annotations" in record for record in self.records.values())


def read_outcome(cfg: CfgNode, dataset: str) -> Outcome:
    """Read labels and detections of a registered dataset, one of ``DATASETS.TEST``.

    Raises:
        IONError: the files are broken or of another dataset.
    """
    records = {record["image_id"]: record for record in test_dicts(cfg, dataset)}
    in_coco = evaluator_type(dataset) == "coco"
    content = coco_content(dataset) if in_coco else None
    folder = evaluation_folder(cfg, dataset)
    path = os.path.join(folder, _COCO_DETECTIONS if in_coco else _VOC_DETECTIONS)
    listed = read_json(path)
    names = class_names([dataset])
    found = None
    if listed is not None:
        take = _voc_reader(names) if content is None else _coco_reader(content)
        found = _group(listed, take, list(records), path)
    return Outcome(
        dataset=dataset,
        folder=folder,
        class_names=names,
        records=records,
        truth={key: ground_truth_from_dict(record) for key, record in records.items()},
        found=found,
        content=content,
        raw=(listed or []) if in_coco else [],
    )


def read_json(path: str) -> Any:
    """The content of a JSON file; None if it does not exist.

    Raises:
        IONError: it is not JSON.
    """
    if not os.path.isfile(path):
        return None
    return plain_files.read_json(path, STALE)


@contextlib.contextmanager
def fields_of(path: str, advice: str = STALE) -> Iterator[None]:
    """Take fields out of a file of results, which may be of another format.

    Raises:
        IONError: one is missing or of another type; the message ends with the advice.
    """
    try:
        yield
    except (LookupError, TypeError, AttributeError) as error:
        raise IONError(f"{path} is not of this format ({error!r}); {advice}.") from error


def _voc_reader(names: list[str]) -> Callable[[dict[str, Any]], tuple[int, list[float]]]:
    """Class and corners of an entry of detections.json."""
    numbers = {name: number for number, name in enumerate(names)}
    return lambda entry: (numbers[entry["category"]], entry["bbox"])


def _coco_reader(content: Content) -> Callable[[dict[str, Any]], tuple[int, list[float]]]:
    """Class and corners of an entry of coco_instances_results.json."""
    numbers = {category["id"]: number for number, category in enumerate(content["categories"])}

    def take(entry: dict[str, Any]) -> tuple[int, list[float]]:
        x, y, width, height = entry["bbox"]
        return numbers[entry["category_id"]], [x, y, x + width, y + height]

    return take


def _group(
    listed: list[dict[str, Any]],
    take: Callable[[dict[str, Any]], tuple[int, list[float]]],
    images: list[Hashable],
    path: str,
) -> dict[Hashable, Detections]:
    """Sort a list of detections by image."""
    columns: dict[Hashable, list[tuple[list[float], float, int]]] = {key: [] for key in images}
    try:
        for entry in listed:
            number, box = take(entry)
            columns[entry["image_id"]].append((box, entry["score"], number))
        return {key: _detections(rows) for key, rows in columns.items()}
    except (KeyError, TypeError, ValueError) as error:
        raise IONError(f"{path} is broken or of another dataset ({error!r}); {STALE}.") from error


def _detections(rows: list[tuple[list[float], float, int]]) -> Detections:
    boxes, scores, classes = zip(*rows) if rows else ([], [], [])
    return Detections(
        np.array(boxes, dtype=np.float64).reshape(-1, 4),
        np.array(scores, dtype=np.float64),
        np.array(classes, dtype=np.int64),
    )
