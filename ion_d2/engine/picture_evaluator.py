"""Pictures of detections beside ground truth, made while a dataset is evaluated."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Instances
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from PIL import Image

from ..data.run_images import spread_evenly
from ..files import fitting_name
from .pictures import save_pictures

logger = logging.getLogger(__name__)

_LONGEST_TITLE = 100  # bytes; writers make names of files of it, with more around it


class PictureEvaluator(DatasetEvaluator):
    """Keeps the detections of a few images, spread evenly over the dataset, and draws them."""

    def __init__(self, dataset_name: str, output_dir: str, num_pictures: int) -> None:
        """
        Args:
            dataset_name: a registered name, whose dicts carry the ground truth.
            output_dir: folder for the pictures; made if need be.
            num_pictures: how many to draw.
        """
        dicts = spread_evenly(DatasetCatalog.get(dataset_name), num_pictures)
        self._chosen = {each["image_id"]: each for each in dicts}
        self._metadata = MetadataCatalog.get(dataset_name)
        self._output_dir = output_dir
        self._detections: dict[Any, Instances] = {}

    def reset(self) -> None:
        """Forget all detections."""
        self._detections = {}

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Keep the detections of the chosen images.

        Args:
            inputs: the model's inputs, with "image_id".
            outputs: its outputs, with "instances".
        """
        for x, output in zip(inputs, outputs):
            if x["image_id"] in self._chosen:
                self._detections[x["image_id"]] = output["instances"].to("cpu")

    def evaluate(self) -> None:
        """Draw the pictures, in the main process; they add no figures to the results."""
        gathered = comm.gather(self._detections, dst=0)
        if not comm.is_main_process():
            return
        detections = {k: v for part in gathered for k, v in part.items()}
        dicts = [d for k, d in self._chosen.items() if k in detections]
        chosen = [detections[d["image_id"]] for d in dicts]
        files = save_pictures(dicts, chosen, self._metadata, self._output_dir)
        logger.info("Pictures of %d images are in %s", len(files), self._output_dir)
        _show(files)


def _show(files: Iterable[Path]) -> None:
    """Hand pictures to TensorBoard, if a training is under way."""
    try:
        storage = get_event_storage()
    except AssertionError:  # Detectron2's way to say that there is none
        return
    for file in files:
        try:
            with Image.open(file) as picture:
                pixels = np.asarray(picture).transpose(2, 0, 1)
        except (OSError, ValueError) as error:  # gone again, say
            logger.warning("TensorBoard does not show %r: %s", str(file), error)
        else:
            title = fitting_name(file.stem, most=_LONGEST_TITLE)
            storage.put_image(f"detections/{title}", pixels)
