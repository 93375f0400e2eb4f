"""Detectron2's evaluation of COCO's format, on the labels that the training reads."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
from collections.abc import Hashable, Iterator, Sequence
from operator import methodcaller
from typing import Any

from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.utils import comm

from ..data.coco_datasets import category_metadata, coco_content
from ..data.coco_file import Content
from ..errors import IONError

logger = logging.getLogger(__name__)


class IONCOCOEvaluator(COCOEvaluator):
    """Detectron2's evaluator, of a dataset's normalized labels, which may leave images out.

    The dataset may be of any format. Labels are looked at anew for each evaluator, never taken from
    a file that an earlier run has left. Without "annotations" there are no figures, and
    ``coco_instances_results.json`` in the output folder is what COCO's server takes.
    """

    def __init__(
        self,
        dataset_name: str,
        *,
        image_ids: Sequence[Hashable] | None = None,
        output_dir: str | None = None,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            dataset_name: a registered dataset.
            image_ids: the images to evaluate; None for all.
            output_dir: where Detectron2's evaluator writes its results; None for nowhere.
            kwargs: further arguments of Detectron2's evaluator.

        Raises:
            IONError: the labels cannot be used.
        """
        content = coco_content(dataset_name)
        with _as_dataset(content, dataset_name) as normalized:
            super().__init__(normalized, output_dir=output_dir, **kwargs)
        self._dataset_name = dataset_name
        self._ids = {str(image["id"]): image["id"] for image in content["images"]}
        self._image_ids = None if image_ids is None else [self._id(i) for i in image_ids]

    def process(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None:
        """Take the detections of some images; IONError if an "image_id" is none of the dataset."""
        super().process([{**x, "image_id": self._id(x["image_id"])} for x in inputs], outputs)

    def evaluate(self, img_ids: Sequence[Hashable] | None = None) -> dict[str, Any]:
        """Figures as Detectron2's evaluator gives them; none if there are no annotations.

        ``img_ids`` are the images to evaluate; None for those of the constructor.
        """
        results = super().evaluate(img_ids=self._image_ids if img_ids is None else img_ids)
        if not self._do_evaluation and self._output_dir and comm.is_main_process():
            logger.warning(
                "%s has no annotations, so there are no figures; hand %s in at COCO's server.",
                self._dataset_name,
                os.path.join(self._output_dir, "coco_instances_results.json"),
            )
        return results

    def _id(self, image_id: Hashable) -> Hashable:
        try:
            return self._ids[str(image_id)]
        except KeyError:
            raise IONError(
                f"There is no image {image_id!r} in dataset '{self._dataset_name}'; evaluate on "
                "its images only."
            ) from None


@contextlib.contextmanager
def _as_dataset(content: Content, dataset_name: str) -> Iterator[str]:
    """Give Detectron2's evaluator, which reads files of named datasets, the content as one."""
    name = f"{dataset_name}, normalized"
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "annotations.json")
        with open(path, "w", encoding="utf-8") as file:
            # What a user's function gives may hold numbers and arrays of NumPy.
            json.dump(content, file, default=methodcaller("tolist"))
        metadata = category_metadata(content["categories"], dataset_name)
        # The names of its table, which has the order of the ids.
        by_id = sorted(content["categories"], key=lambda category: category["id"])
        metadata["thing_classes"] = [category["name"] for category in by_id]
        MetadataCatalog.get(name).set(json_file=path, **metadata)
        try:
            yield name
        finally:
            MetadataCatalog.remove(name)
