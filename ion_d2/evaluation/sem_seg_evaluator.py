"""Mean intersection over union of segmentation.

Detectron2's own SemSegEvaluator is not used: it needs a label map for every image, and what "mIoU"
averages over depends on its version.
"""

from __future__ import annotations

import functools
import logging
import os
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from ..data.sem_seg import read_label_map
from ..errors import IONError
from .image_boxes import require_all
from .results_file import write_json
from .tables import class_cells, text_table

logger = logging.getLogger(__name__)


class IONSemSegEvaluator(DatasetEvaluator):
    """Mean IoU over the pixels whose true class is known, of the images that have a label map."""

    def __init__(
        self,
        dataset_name: str,
        num_classes: int,
        ignore_label: int = 255,
        output_dir: str | None = None,
        distributed: bool = True,
        *,
        records: Sequence[dict[str, Any]] | None = None,
    ) -> None:
        """
        Args:
            dataset_name: a registered dataset.
            num_classes: number of ids, the background included (MODEL.SEM_SEG_HEAD.NUM_CLASSES).
            ignore_label: the id of pixels that belong to no class.
            output_dir: folder for sem_seg_results.json; None writes no file.
            distributed: add up the counts of all ranks; else evaluate those of this process.
            records: dicts of the images to evaluate, which name label maps under
                "sem_seg_file_name"; None takes those of the dataset.

        Raises:
            IONError: the dataset's `stuff_classes` are not `num_classes` names, no image has a
                label map, or one cannot be used.
        """
        self._dataset_name = dataset_name
        self._num_classes = num_classes
        self._ignore_label = ignore_label
        self._output_dir = output_dir
        self._distributed = distributed
        self._class_names = _class_names(dataset_name, num_classes)
        records = DatasetCatalog.get(dataset_name) if records is None else records
        labeled = [record for record in records if "sem_seg_file_name" in record]
        if not labeled:
            raise IONError(
                f"TEST.SEM_SEG is True, but no image of {dataset_name} has a label map; name "
                "folders of some in DATASETS.SEM_SEG_DIRS, or set it to False."
            )
        self._label_files = {each["image_id"]: each["sem_seg_file_name"] for each in labeled}
        # Now, and not when the model has been trained for hours and its boxes are found.
        for file in self._label_files.values():
            _check_once(file, num_classes, ignore_label)
        self.reset()

    def reset(self) -> None:
        # confusion[t, p]: pixels of true class t predicted as class p.
        self._confusion = np.zeros((self._num_classes, self._num_classes), dtype=np.int64)
        self._seen: set[str] = set()

    def process(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None:
        """Count the pixels of a batch; images without a label map are left out.

        The "sem_seg" of an output is a (num_classes, H, W) tensor of scores or logits at the size
        of the original image.

        Raises:
            IONError: a label map cannot be used, or does not fit the prediction.
        """
        labels = (self._num_classes, self._ignore_label)
        for record, output in zip(inputs, outputs):
            image_id, scores = record["image_id"], output["sem_seg"]
            file = self._label_files.get(image_id)
            if file is None or image_id in self._seen:
                continue
            truth = read_label_map(file, *labels)
            wanted = (self._num_classes, *truth.shape)
            if tuple(scores.shape) != wanted:
                raise IONError(
                    f"The segmentation of image {image_id} has shape {tuple(scores.shape)}, but "
                    f"{self._num_classes} classes and the label map {file} ask for {wanted}: check "
                    "the label map's size and MODEL.SEM_SEG_HEAD.NUM_CLASSES."
                )
            predicted = scores.argmax(dim=0).cpu().numpy()
            self._confusion += confusion_matrix(truth, predicted, *labels)
            self._seen.add(image_id)

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Evaluate the predictions of all ranks.

        Returns:
            On the main process, {"sem_seg": figures in percent}: "mIoU" over the classes that occur
            in prediction or truth, "pACC" (pixels that are right), "IoU-<class>" (NaN for a class
            that occurs in neither). Empty elsewhere.

        Raises:
            IONError: on the main process, if an image with a label map has not been processed.
        """
        own = (self._confusion, self._seen)
        parts = comm.gather(own, dst=0) if self._distributed else [own]
        if not parts:
            return OrderedDict()
        seen = set().union(*(seen for _, seen in parts))
        require_all(self._label_files, seen, f"{self._dataset_name} with a label map")
        total = np.sum([confusion for confusion, _ in parts], axis=0)
        mean_iou, accuracy, iou = scores_from_confusion(total)
        figures = {"mIoU": 100 * mean_iou, "pACC": 100 * accuracy}
        per_class = dict(zip(self._class_names, (100 * iou).tolist()))
        name, number = self._dataset_name, len(self._label_files)
        table = text_table(class_cells(per_class, "IoU", figures["mIoU"]))
        logger.info("Segmentation of %s (%d images, percent):\n%s", name, number, table)
        if self._output_dir:
            report = {"dataset": name, "num_images": number, **figures, "IoU": per_class}
            write_json(os.path.join(self._output_dir, "sem_seg_results.json"), report, indent=1)
        figures.update({f"IoU-{label}": value for label, value in per_class.items()})
        return OrderedDict(sem_seg=figures)


@functools.cache  # an evaluator is built for each evaluation of a training
def _check_once(file: str, num_classes: int, ignore_label: int) -> None:
    read_label_map(file, num_classes, ignore_label)


def confusion_matrix(
    truth: np.ndarray, predicted: np.ndarray, num_classes: int, ignore_label: int
) -> np.ndarray:
    """Count the pixels (H, W) of each pair of true and predicted class, but for ignored ones.

    Returns:
        (num_classes, num_classes) int64 array, rows the true class, columns the predicted one.
    """
    valid = truth != ignore_label
    pairs = truth[valid].astype(np.int64) * num_classes + predicted[valid]
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def scores_from_confusion(confusion: np.ndarray) -> tuple[float, float, np.ndarray]:
    """Figures of a (K, K) confusion matrix, rows the true class, columns the predicted one.

    Returns:
        Mean IoU over the classes that occur, the share of pixels that are right, and the (K,) IoU
        per class, all in 0..1; NaN for what has no pixel.
    """
    right = np.diagonal(confusion).astype(np.float64)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - right
    iou = np.divide(right, union, out=np.full_like(right, np.nan), where=union > 0)
    occurring = iou[union > 0]
    if not occurring.size:
        return float("nan"), float("nan"), iou
    return float(occurring.mean()), float(right.sum() / confusion.sum()), iou


def _class_names(dataset_name: str, num_classes: int) -> list[str]:
    names = MetadataCatalog.get(dataset_name).get("stuff_classes")
    if names is None or len(names) != num_classes:
        raise IONError(
            f"The segmentation head has {num_classes} classes, but the metadata of {dataset_name} "
            f"names {0 if names is None else len(names)} in stuff_classes: set "
            "MODEL.SEM_SEG_HEAD.NUM_CLASSES to the number of classes plus one for the background."
        )
    return list(names)
