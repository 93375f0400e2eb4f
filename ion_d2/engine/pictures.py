"""Pictures of detections beside ground truth, also made while a dataset is evaluated."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import Metadata
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Instances
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from PIL import Image

from ..data.outlines import corners_of
from ..data.readable import read_image
from ..errors import NO_SPACE
from ..files import fitting_name, replace_file
from .drawing import Marks, draw_panels

logger = logging.getLogger(__name__)


def marks_of(detections: Instances, score_threshold: float = 0.0) -> Marks:
    """Take the detections of at least a score, the surest last, so that it is drawn on top."""
    found = detections[detections.scores >= score_threshold].to("cpu")
    found = found[found.scores.argsort()]
    boxes, classes = found.pred_boxes.tensor.tolist(), found.pred_classes.tolist()
    return Marks(boxes, classes, found.scores.tolist())


def truth_of(record: dict[str, Any]) -> Marks:
    """Take the labeled boxes of a Detectron2 dataset dict."""
    annotations = record.get("annotations", [])
    return Marks([*map(corners_of, annotations)], [a["category_id"] for a in annotations])


def draw_detections(
    image: np.ndarray, detections: Instances, names: Sequence[str], *, panel_size: int = 640
) -> Image.Image:
    """Draw a picture, (H, W, 3) uint8 BGR, with all its detections; names are by class id.

    The longer side of the drawing has ``panel_size`` pixels.
    """
    panels = [("", marks_of(detections))]
    return draw_panels(image[:, :, ::-1], panels, names, panel_size=panel_size)


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a picture; a JPEG keeps its chroma whole, or thin colored lines would smear."""
    kind = Image.registered_extensions()[path.suffix.lower()]
    options: dict[str, Any] = {"quality": 92, "subsampling": 0} if kind == "JPEG" else {}
    replace_file(str(path), lambda file: picture.save(file, kind, **options))


def save_pictures(
    dataset_dicts: Sequence[dict[str, Any]],
    detections: Sequence[Instances],
    metadata: Metadata,
    out_dir: str | Path,
    *,
    score_threshold: float = 0.5,
) -> list[Path]:
    """Save each image with its ground truth on the left and its detections on the right.

    An image that cannot be drawn, because it is unreadable, say, is left out with a warning; a full
    disk is an ``OSError``.

    Args:
        dataset_dicts: Detectron2 dataset dicts with ``annotations``, one per picture wanted.
        detections: the model's Instances for each, in pixels of the image file.
        metadata: the dataset's; its ``thing_classes`` name the classes.
        out_dir: folder for the pictures, made if missing; files of the same name are replaced.
        score_threshold: lowest score of a detection to draw.

    Returns:
        The files written, ``NN_<name of the image>.jpg``; a name that would be too long is cut.
    """
    folder, names = Path(out_dir), metadata.get("thing_classes") or []
    written = []
    for number, (record, found) in enumerate(zip(dataset_dicts, detections)):
        stem = Path(record["file_name"]).stem
        path = folder / fitting_name(stem, prefix=f"{number:02d}_", suffix=".jpg")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            save_picture(_beside_truth(record, found, names, score_threshold), path)
        except (OSError, ValueError, OverflowError) as error:  # an IONError is a ValueError
            if isinstance(error, OSError) and error.errno in NO_SPACE:
                raise OSError(error.errno, error.strerror, str(path)) from error
            told = " ".join(str(error).split())
            logger.warning("No picture is drawn of %r: %s", str(record["file_name"]), told)
        else:
            written.append(path)
    return written


def _beside_truth(
    record: dict[str, Any], found: Instances, names: Sequence[str], score_threshold: float
) -> Image.Image:
    truth, marks = truth_of(record), marks_of(found, score_threshold)
    panels = [
        (f"ground truth: {len(truth.boxes)}", truth),
        (f"detections: {len(marks.boxes)} (score \u2265 {score_threshold:g})", marks),
    ]
    return draw_panels(read_image(str(record["file_name"]), "RGB"), panels, names)


class PictureEvaluator(DatasetEvaluator):
    """Keeps the detections of a few images of a dataset, and draws them."""

    def __init__(
        self, dicts: Sequence[dict[str, Any]], metadata: Metadata, output_dir: str
    ) -> None:
        """Draw the images of some dataset dicts into a folder, made if need be."""
        self._chosen = {each["image_id"]: each for each in dicts}
        self._metadata = metadata
        self._output_dir = output_dir
        self._detections: dict[Any, Instances] = {}

    def reset(self) -> None:
        self._detections = {}

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        for x, output in zip(inputs, outputs):
            if x["image_id"] in self._chosen:
                self._detections[x["image_id"]] = output["instances"].to("cpu")

    def evaluate(self) -> None:
        """Draw the pictures, in the main process; they add no figures to the results."""
        gathered = comm.gather(self._detections, dst=0)
        if not comm.is_main_process():
            return
        found = {k: v for part in gathered for k, v in part.items()}
        dicts = [d for k, d in self._chosen.items() if k in found]
        detections = [found[d["image_id"]] for d in dicts]
        files = save_pictures(dicts, detections, self._metadata, self._output_dir)
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
            # TensorBoard makes file names of it, with more around it.
            title = fitting_name(file.stem, most=100)
            storage.put_image(f"detections/{title}", pixels)
