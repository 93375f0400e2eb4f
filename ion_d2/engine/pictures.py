"""Pictures of detections beside ground truth, and sheets of such pictures."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import Metadata
from detectron2.structures import BoxMode, Instances
from PIL import Image

from ion_d2.data.readable import read_image
from ion_d2.engine.drawing import BACKGROUND, Marks, draw_panels
from ion_d2.errors import NO_SPACE
from ion_d2.files import fitting_name

__all__ = [
    "contact_sheet",
    "draw_detections",
    "marks_of",
    "save_picture",
    "save_pictures",
    "truth_of",
]

logger = logging.getLogger(__name__)


def marks_of(detections: Instances, score_threshold: float = 0.0) -> Marks:
    """Take the detections that are sure enough, the surest last, so that it is drawn on top.

    Args:
        detections: Instances with ``pred_boxes``, ``scores`` and ``pred_classes``.
        score_threshold: lowest score to keep.

    Returns:
        Their boxes, classes and scores.
    """
    found = detections[detections.scores >= score_threshold].to("cpu")
    found = found[found.scores.argsort()]
    return Marks(
        found.pred_boxes.tensor.tolist(), found.pred_classes.tolist(), found.scores.tolist()
    )


def draw_detections(
    image: np.ndarray, detections: Instances, names: Sequence[str], *, panel_size: int = 640
) -> Image.Image:
    """Draw a picture with its detections.

    Args:
        image: (H, W, 3) uint8, BGR, as :class:`ion_d2.engine.predictor.IONPredictor` takes it.
        detections: Instances in its pixels, all of which are drawn.
        names: class names by id.
        panel_size: longer side of the drawing in pixels.

    Returns:
        The drawing.
    """
    panels = [("", marks_of(detections))]
    return draw_panels(image[:, :, ::-1], panels, names, panel_size=panel_size)


def save_pictures(
    dataset_dicts: Sequence[dict[str, Any]],
    detections: Sequence[Instances],
    metadata: Metadata,
    out_dir: str | Path,
    *,
    score_threshold: float = 0.5,
) -> list[Path]:
    """Save each image with its ground truth on the left and its detections on the right.

    An image that cannot be drawn, because it is unreadable, say, is left out with a warning.

    Args:
        dataset_dicts: Detectron2 dataset dicts with ``annotations``, one per picture wanted.
        detections: the model's Instances for each, in pixels of the image file.
        metadata: the dataset's; its ``thing_classes`` name the classes.
        out_dir: folder for the pictures, made if missing; files of the same name are replaced.
        score_threshold: lowest score of a detection to draw.

    Returns:
        The files written, ``NN_<name of the image>.jpg``, in the order given; a name that would be
        too long is cut.

    Raises:
        OSError: the disk is full.
    """
    folder = Path(out_dir)
    names = metadata.get("thing_classes") or []
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


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a picture; as JPEG with the chroma kept whole, or thin colored lines would smear.

    Args:
        picture: what to write.
        path: where; its suffix decides the format.
    """
    options: dict[str, Any] = {}
    if path.suffix.lower() in (".jpg", ".jpeg"):
        options = {"quality": 92, "subsampling": 0}
    picture.save(path, **options)


def contact_sheet(pictures: Sequence[str | Path], out: str | Path, *, columns: int = 1) -> Path:
    """Put a few pictures on one sheet, for instance for a README.

    Args:
        pictures: files, row by row.
        out: the file to write, ``.png`` or ``.jpg``; its folder is made if missing.
        columns: pictures in a row.

    Returns:
        ``out`` as a path.
    """
    images = [Image.open(path).convert("RGB") for path in pictures]
    rows = [images[i : i + columns] for i in range(0, len(images), columns)]
    width = max(sum(image.width for image in row) for row in rows)
    heights = [max(image.height for image in row) for row in rows]
    sheet = Image.new("RGB", (width, sum(heights)), BACKGROUND)
    for number, row in enumerate(rows):
        x, y = 0, sum(heights[:number])
        for image in row:
            sheet.paste(image, (x, y))
            x += image.width
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_picture(sheet, path)
    return path


def truth_of(record: dict[str, Any]) -> Marks:
    """Take the labeled boxes of an image.

    Args:
        record: its Detectron2 dataset dict.

    Returns:
        Their boxes and classes.
    """
    annotations = record.get("annotations", [])
    boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations]
    return Marks(boxes, [a["category_id"] for a in annotations])
