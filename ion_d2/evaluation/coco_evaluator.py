"""Detectron2's evaluation of COCO's format, of the images that were run through the model."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from detectron2.evaluation import COCOEvaluator

from .coco_style import complete_annotations


class IONCOCOEvaluator(COCOEvaluator):
    """Detectron2's evaluator, which may leave images out.

    Annotations need neither "iscrowd" nor "area", which pycocotools asks for.
    """

    def __init__(
        self, dataset_name: str, *, image_ids: Sequence[Hashable] | None = None, **kwargs: Any
    ) -> None:
        """
        Args:
            dataset_name: a registered dataset in COCO's format.
            image_ids: the images to evaluate; None for all of the annotation file.
            kwargs: further arguments of Detectron2's evaluator.
        """
        super().__init__(dataset_name, **kwargs)
        complete_annotations(self._coco_api.dataset.get("annotations", ()))
        self._image_ids = None if image_ids is None else list(image_ids)

    def evaluate(self, img_ids: Sequence[Hashable] | None = None) -> dict[str, Any]:
        """Evaluate the detections of all processes.

        Args:
            img_ids: the images to evaluate; None for those of the constructor.

        Returns:
            As Detectron2's evaluator.
        """
        return super().evaluate(img_ids=self._image_ids if img_ids is None else img_ids)
