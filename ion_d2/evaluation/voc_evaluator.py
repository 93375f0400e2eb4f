"""Detectron2 evaluator for VOC-format data: AP by both of VOC's definitions and by COCO's."""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from ion_d2.data.class_file import check_class_names
from ion_d2.errors import IONError
from ion_d2.evaluation.coco_style import evaluate_coco_style
from ion_d2.evaluation.image_boxes import (
    Detections,
    GroundTruth,
    detections_from_instances,
    ground_truth_from_dict,
    in_devkit_boxes,
)
from ion_d2.evaluation.results_file import write_json
from ion_d2.evaluation.tables import metrics_table, voc_table
from ion_d2.evaluation.voc_ap import METRICS, VOCResult, check_metric, evaluate_voc
from ion_d2.evaluation.voc_server import check_image_ids, write_server_files

_SUMMARY = {"AP": None, "AP50": 0.5, "AP75": 0.75}
_SIZE_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


class IONVOCEvaluator(DatasetEvaluator):
    """Average precision on any dataset whose dicts have boxes (evaluator_type "pascal_voc").

    The boxes of the dataset dicts are the truth, so labels of any year and with any optional field
    left out will do. Boxes marked "difficult" need not be found. Classes without a box to be found
    are left out of all means. If no dict has "annotations", there are no figures, only files for
    VOC's evaluation server.
    """

    def __init__(
        self,
        dataset_name: str,
        *,
        metric: str = "11point",
        output_dir: str | None = None,
        distributed: bool = True,
        records: Sequence[dict[str, Any]] | None = None,
        server_files: bool = False,
    ) -> None:
        """
        Args:
            dataset_name: a registered dataset whose metadata has `thing_classes`.
            metric: definition of AP under the key "bbox": "11point" (VOC 2007) or "area" (VOC 2010
                on).
            output_dir: folder for voc_results.json and detections.json; None writes no file.
            distributed: collect the detections of all ranks; else evaluate those of this process.
            records: dicts of the images to evaluate; None is all of the dataset.
            server_files: write files for VOC's evaluation server also where there are annotations;
                see :func:`~ion_d2.evaluation.voc_server.write_server_files`.

        Raises:
            IONError: for an unknown metric, repeated image ids, a dataset without class names, or
                one without annotations and no `output_dir`.
        """
        check_metric(metric)
        self._dataset_name = dataset_name
        self._metric = metric
        self._output_dir = output_dir
        self._distributed = distributed
        self._class_names = _class_names(dataset_name)
        records = DatasetCatalog.get(dataset_name) if records is None else records
        self._truth = _ground_truth(dataset_name, records)
        self._labeled = any("annotations" in record for record in records)
        self._server_files = server_files or not self._labeled
        self._found: dict[Hashable, Detections] = {}
        self._logger = logging.getLogger(__name__)
        if self._server_files:
            self._check_server_files()

    def reset(self) -> None:
        """Forget all detections."""
        self._found = {}

    def process(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None:
        """Take the detections of a batch.

        Args:
            inputs: dataset dicts, of which "image_id" is read.
            outputs: the model's outputs, of which "instances" is read: "pred_boxes" in pixels of
                the original image (0-based, exclusive right and bottom edge), "scores" and
                "pred_classes".

        Raises:
            IONError: if an image or a class is not in the dataset.
        """
        for record, output in zip(inputs, outputs):
            found = detections_from_instances(output["instances"])
            self._check(record["image_id"], found)
            self._found[record["image_id"]] = found

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Evaluate the detections of all ranks.

        Returns:
            On the main process, task -> figures in percent: "bbox" (AP, AP50, AP75 by the chosen
            metric, and "AP50-<class>"), "bbox_11point" and "bbox_area" (AP, AP50, AP75 by each
            metric), "bbox_coco" (AP, AP50, AP75, APs, APm, APl as COCO defines them). NaN where
            there is no box to be found. Empty elsewhere, and for a dataset without annotations.

        Raises:
            IONError: on the main process, if an image of the dataset has not been processed.
        """
        found = self._gather()
        if found is None:
            return OrderedDict()
        num_found = sum(len(f.scores) for f in found.values())
        self._logger.info("Evaluating %d detections in %d images.", num_found, len(found))
        if self._output_dir:
            path = os.path.join(self._output_dir, "detections.json")
            write_json(path, self._detection_list(found))
        if self._server_files:
            self._write_server_files(found)
        if not self._labeled:
            return OrderedDict()
        result = evaluate_voc(
            in_devkit_boxes(self._truth), in_devkit_boxes(found), self._class_names
        )
        coco = evaluate_coco_style(self._truth, found, self._class_names)
        self._log(result, coco)
        if self._output_dir:
            path = os.path.join(self._output_dir, "voc_results.json")
            write_json(path, self._report(result, coco), indent=1)
        return self._results(result, coco)

    def _check(self, image_id: str, found: Detections) -> None:
        if image_id not in self._truth:
            raise IONError(
                f'Image "{image_id}" has detections but is not among the evaluated images of '
                f"{self._dataset_name}: evaluate with the dataset that the images come from."
            )
        highest = int(found.classes.max(initial=-1))
        if highest >= len(self._class_names):
            raise IONError(
                f"The model found class number {highest}, but {self._dataset_name} has "
                f"{len(self._class_names)} classes (numbered from 0): set "
                "MODEL.ROI_HEADS.NUM_CLASSES to that number."
            )

    def _gather(self) -> dict[Hashable, Detections] | None:
        """Detections of all ranks, None off the main process.

        They are put into the dataset's order, so that equal scores rank alike for any number of
        ranks.
        """
        parts = comm.gather(self._found, dst=0) if self._distributed else [self._found]
        if not parts:
            return None
        found = {image_id: detections for part in parts for image_id, detections in part.items()}
        missing = [image_id for image_id in self._truth if image_id not in found]
        if missing:
            raise IONError(
                f"{len(missing)} of {len(self._truth)} images of {self._dataset_name} have not "
                f'been run through the model (first: "{missing[0]}"): run all of them, or give '
                "the records of those to evaluate."
            )
        return {image_id: found[image_id] for image_id in self._truth}

    def _check_server_files(self) -> None:
        if self._output_dir is None:
            raise IONError(
                f"Dataset '{self._dataset_name}' is to give files for VOC's server (it has no "
                "annotations, or server_files is True); give an output_dir."
            )
        check_image_ids(list(self._truth), self._dataset_name)

    def _write_server_files(self, found: dict[Hashable, Detections]) -> None:
        assert self._output_dir is not None  # see _check_server_files
        metadata = MetadataCatalog.get(self._dataset_name)
        year, split = metadata.get("year", 2012), metadata.get("split", "test")
        place = write_server_files(
            self._output_dir, found, self._class_names, year=year, split=split
        )
        self._logger.info(
            "Files for VOC's evaluation server are in %s; pack the folder 'results' above it.",
            place,
        )
        if not self._labeled:
            self._logger.warning(
                "%s has no annotations, so there is no average precision.", self._dataset_name
            )

    def _log(self, result: VOCResult, coco: dict[str, float]) -> None:
        self._logger.info(
            "VOC average precision on %s (%d images, percent):\n%s",
            self._dataset_name,
            len(self._truth),
            voc_table(result, self._metric),
        )
        sizes = metrics_table({name: coco[name] for name in _SIZE_METRICS})
        self._logger.info("COCO average precision on %s (percent):\n%s", self._dataset_name, sizes)

    def _results(self, result: VOCResult, coco: dict[str, float]) -> dict[str, dict[str, float]]:
        results = OrderedDict(bbox=_means(result, self._metric))
        for name, ap in zip(result.class_names, result.class_ap(self._metric, 0.5)):
            results["bbox"][f"AP50-{name}"] = 100 * float(ap)
        results.update({f"bbox_{metric}": _means(result, metric) for metric in METRICS})
        results["bbox_coco"] = {name: coco[name] for name in _SIZE_METRICS}
        return results

    def _report(self, result: VOCResult, coco: dict[str, float]) -> dict[str, Any]:
        return {
            "dataset": self._dataset_name,
            "num_images": len(self._truth),
            "metric": self._metric,
            "mean": {metric: _means(result, metric) for metric in METRICS},
            "coco": coco,
            "classes": {
                name: _class_report(result, row) for row, name in enumerate(result.class_names)
            },
        }

    def _detection_list(self, found: dict[Hashable, Detections]) -> list[dict[str, Any]]:
        names = self._class_names
        return [
            {"image_id": image_id, "category": names[category], "bbox": box, "score": score}
            for image_id, detections in found.items()
            for box, score, category in zip(*(column.tolist() for column in detections))
        ]


def _class_names(dataset_name: str) -> list[str]:
    names = MetadataCatalog.get(dataset_name).get("thing_classes")
    if not names:
        raise IONError(
            f"Dataset {dataset_name} has no thing_classes in its metadata: register its class "
            "names."
        )
    return check_class_names(names, f"Dataset '{dataset_name}' (thing_classes)")


def _ground_truth(
    dataset_name: str, records: Sequence[dict[str, Any]]
) -> dict[Hashable, GroundTruth]:
    """Labeled boxes of the images to evaluate, by image id, in the given order."""
    truth = {record["image_id"]: ground_truth_from_dict(record) for record in records}
    if len(truth) < len(records):
        raise IONError(
            f"Dataset {dataset_name} lists {len(records) - len(truth)} images more than once: "
            "list each one once."
        )
    return truth


def _means(result: VOCResult, metric: str) -> dict[str, float]:
    return {name: 100 * result.mean_ap(metric, threshold) for name, threshold in _SUMMARY.items()}


def _class_report(result: VOCResult, row: int) -> dict[str, Any]:
    """Counts and all figures of one class, in percent."""
    report: dict[str, Any] = {
        "num_images": int(result.num_images[row]),
        "num_boxes": int(result.num_positives[row]),
        "num_difficult": int(result.num_difficult[row]),
    }
    for metric in METRICS:
        figures = {
            name: result.class_ap(metric, threshold)[row] for name, threshold in _SUMMARY.items()
        }
        report[metric] = {name: 100 * float(value) for name, value in figures.items()}
        by_threshold = zip(result.iou_thresholds, result.ap[metric][row].tolist())
        report[metric]["by_iou"] = {f"{threshold:.2f}": 100 * ap for threshold, ap in by_threshold}
    return report
