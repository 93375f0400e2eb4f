"""Result files for the evaluation server of PASCAL VOC, whose test labels are withheld."""

from __future__ import annotations

import logging
import os
from collections.abc import Hashable, Iterable, Mapping, Sequence

from detectron2.data import MetadataCatalog

from ..errors import IONError
from ..files import distinct_file_names
from .image_boxes import Detections
from .results_file import write_text

logger = logging.getLogger(__name__)


def check_server_files(
    folder: str | None, image_ids: Iterable[Hashable], dataset_name: str
) -> None:
    """Raise IONError without a folder, or for an id that the files cannot hold."""
    if folder is None:
        raise IONError(
            f"Dataset '{dataset_name}' is to give files for VOC's server (it has no annotations, "
            "or server_files is True); give an output_dir."
        )
    for image_id in image_ids:
        if len(str(image_id).split()) != 1:
            raise IONError(
                f"Image '{image_id}' of dataset '{dataset_name}' has white space in its id, which "
                "files for VOC's server cannot hold; rename it, or set TEST.VOC_SERVER_FILES to "
                "False if the dataset has annotations."
            )


def write_server_files(
    folder: str,
    found: Mapping[Hashable, Detections],
    class_names: Sequence[str],
    dataset_name: str,
) -> None:
    """Write one file a class: ``folder/results/VOCyear/Main/comp4_det_SPLIT_CLASS.txt``.

    A line is an image id, the score with six decimals, and the box in the devkit's convention
    (1-based, right and bottom inclusive) with one decimal, as in Detectron2's evaluator. A class
    without detections has an empty file. Year and split are those of the dataset's metadata; 2012
    and "test" where it has none.

    Raises:
        IONError: a file cannot be written.
    """
    metadata = MetadataCatalog.get(dataset_name)
    split = metadata.get("split", "test")
    place = os.path.join(folder, "results", f"VOC{metadata.get('year', 2012)}", "Main")
    for category, name in enumerate(distinct_file_names(class_names)):
        lines = [
            f"{image_id} {score:.6f} {x0 + 1:.1f} {y0 + 1:.1f} {x1:.1f} {y1:.1f}"
            for image_id, detections in found.items()
            for (x0, y0, x1, y1), score, number in zip(*detections)
            if number == category
        ]
        path = os.path.join(place, f"comp4_det_{split}_{name}.txt")
        write_text(path, "".join(f"{line}\n" for line in lines))
    logger.info(
        "Files for VOC's evaluation server are in %s; pack the folder 'results' above it.", place
    )
