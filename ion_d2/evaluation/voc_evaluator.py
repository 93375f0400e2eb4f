"""Average precision of boxes by both of VOC's definitions and by COCO's."""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import Any

from detectron2.data import DatasetCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from ..data.catalog import registered_classes
from ..errors import IONError
from .coco_style import COCO_METRICS, evaluate_coco_style
from .image_boxes import (
    Detections,
    detections_from_instances,
    ground_truth_from_dict,
    require_all,
)
from .results_file import write_json
from .tables import metrics_table, text_table, voc_cells
from .voc_ap import METRICS, VOCResult, check_metric, evaluate_voc
from .voc_server import check_server_files, write_server_files

logger = logging.getLogger(__name__)

_SUMMARY = {"AP": None, "AP50": 0.5, "AP75": 0.75}


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
            metric: definition of AP under the key "bbox": "11point" (VOC 2007) or "area" (2010).
            output_dir: folder for voc_results.json and detections.json; None writes no file.
            distributed: collect the detections of all ranks; else evaluate those of this process.
            records: dicts of the images to evaluate; None is all of the dataset.
            server_files: write files for VOC's evaluation server also where there are annotations.

        Raises:
            IONError: for an unknown metric, repeated image ids, a dataset without class names, or
                one without annotations and no `output_dir`.
        """
        check_metric(metric)
        self._dataset_name = dataset_name
        self._metric = metric
        self._output_dir = output_dir
        self._distributed = distributed
        self._class_names = registered_classes(dataset_name)
        records = DatasetCatalog.get(dataset_name) if records is None else records
        self._truth = {each["image_id"]: ground_truth_from_dict(each) for each in records}
        if len(self._truth) < len(records):
            raise IONError(
                f"Dataset {dataset_name} lists {len(records) - len(self._truth)} images more than "
                "once: list each one once."
            )
        self._labeled = any("annotations" in record for record in records)
        self._server_files = server_files or not self._labeled
        self._found: dict[Hashable, Detections] = {}
        if self._server_files:
            check_server_files(output_dir, self._truth, dataset_name)

    def reset(self) -> None:
        self._found = {}

    def process(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None:
        """Take the "instances" of the outputs: "pred_boxes", "scores" and "pred_classes".

        Boxes are in pixels of the original image, 0-based with exclusive right and bottom edge.

        Raises:
            IONError: an image or a class is not in the dataset.
        """
        for record, output in zip(inputs, outputs):
            image_id, found = record["image_id"], detections_from_instances(output["instances"])
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
            self._found[image_id] = found

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Evaluate the detections of all ranks.

        Returns:
            On the main process, task -> figures in percent, NaN where there is no box to be found:
            "bbox" (AP, AP50, AP75 by the chosen metric, and "AP50-<class>"), "bbox_11point" and
            "bbox_area" (the same three), "bbox_coco" (AP, AP50, AP75, APs, APm, APl). Empty
            elsewhere, and for a dataset without annotations.

        Raises:
            IONError: on the main process, if an image of the dataset has not been processed.
        """
        found = self._gather()
        if found is None:
            return OrderedDict()
        num_found = sum(len(f.scores) for f in found.values())
        logger.info("Evaluating %d detections in %d images.", num_found, len(found))
        self._write("detections.json", self._detection_list(found))
        if self._server_files:
            assert self._output_dir is not None  # see check_server_files
            write_server_files(self._output_dir, found, self._class_names, self._dataset_name)
        name, metric = self._dataset_name, self._metric
        if not self._labeled:
            logger.warning("%s has no annotations, so there is no average precision.", name)
            return OrderedDict()
        result = evaluate_voc(self._truth, found, self._class_names)
        coco = evaluate_coco_style(self._truth, found, self._class_names)
        sizes = {name: coco[name] for name in COCO_METRICS[:6]}  # AP, its thresholds and sizes
        report = self._report(result, coco)
        table, number = text_table(voc_cells(report)), len(self._truth)
        logger.info("VOC average precision on %s (%d images, percent):\n%s", name, number, table)
        logger.info("COCO average precision on %s (percent):\n%s", name, metrics_table(sizes))
        self._write("voc_results.json", report, indent=1)
        by_class = {f"AP50-{c}": entry[metric]["AP50"] for c, entry in report["classes"].items()}
        results = OrderedDict(bbox={**report["mean"][metric], **by_class})
        results.update({f"bbox_{kind}": report["mean"][kind] for kind in METRICS})
        results["bbox_coco"] = sizes
        return results

    def _gather(self) -> dict[Hashable, Detections] | None:
        """Detections of all ranks, None off the main process.

        In the dataset's order, so that equal scores rank alike for any number of ranks.
        """
        parts = comm.gather(self._found, dst=0) if self._distributed else [self._found]
        if not parts:
            return None
        found = {image_id: detections for part in parts for image_id, detections in part.items()}
        require_all(self._truth, found, self._dataset_name)
        return {image_id: found[image_id] for image_id in self._truth}

    def _write(self, name: str, content: Any, indent: int | None = None) -> None:
        if self._output_dir:
            write_json(os.path.join(self._output_dir, name), content, indent)

    def _report(self, result: VOCResult, coco: dict[str, float]) -> dict[str, Any]:
        """The content of voc_results.json."""
        return {
            "dataset": self._dataset_name,
            "num_images": len(self._truth),
            "metric": self._metric,
            "mean": {
                metric: {n: 100 * result.mean_ap(metric, t) for n, t in _SUMMARY.items()}
                for metric in METRICS
            },
            "coco": coco,
            "classes": {n: _class_report(result, i) for i, n in enumerate(result.class_names)},
        }

    def _detection_list(self, found: dict[Hashable, Detections]) -> list[dict[str, Any]]:
        names = self._class_names
        return [
            {"image_id": image_id, "category": names[category], "bbox": box, "score": score}
            for image_id, detections in found.items()
            for box, score, category in zip(*(column.tolist() for column in detections))
        ]


def _class_report(result: VOCResult, row: int) -> dict[str, Any]:
    """Counts and all figures of one class, in percent."""
    report: dict[str, Any] = {
        "num_images": int(result.num_images[row]),
        "num_boxes": int(result.num_positives[row]),
        "num_difficult": int(result.num_difficult[row]),
    }
    for metric in METRICS:
        by_threshold = zip(result.iou_thresholds, result.ap[metric][row].tolist())
        report[metric] = {
            **{n: 100 * float(result.class_ap(metric, t)[row]) for n, t in _SUMMARY.items()},
            "by_iou": {f"{threshold:.2f}": 100 * ap for threshold, ap in by_threshold},
        }
    return report
