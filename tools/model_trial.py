"""One picture under a trained detector: what it finds, and what its context looks at."""

from __future__ import annotations

import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from detectron2.config import CfgNode
from detectron2.modeling import GeneralizedRCNNWithTTA
from detectron2.structures import Instances
from PIL import Image

from ion_d2.data.readable import (
    DECODE_ERRORS,
    UnreadableImageError,
    open_picture,
    read_image,
)
from ion_d2.engine.drawing import Box, Marks, class_color, draw_panel
from ion_d2.engine.pictures import marks_of
from ion_d2.engine.predictor import IONPredictor
from ion_d2.errors import IONError
from ion_d2.evaluation.image_boxes import ground_truth_from_dict
from ion_d2.modeling import ContextBackbone
from ion_lab.report.fields_view import Field, measure_fields
from ion_lab.report.heatmap import heat_map
from ion_lab.report.observe import Sample

NO_CONTEXT = "This model has no context: it judges a box by the features inside it."
# Longer side of a drawing in pixels; powers of ten that the colors of a map span; how opaque the
# map lies on the picture.
_SIDE, _DECADES, _OPACITY = 960, 3, 0.65


class Seen(NamedTuple):
    """A picture, and what a detector found in it."""

    image: np.ndarray  # (H, W, 3) uint8, BGR
    found: Instances  # the surest first

    def above(self, threshold: float) -> Instances:
        """The detections with at least this score."""
        return self.found[self.found.scores >= threshold]

    def box(self, index: int, size: tuple[float, float] = (1, 1)) -> Box:
        """A detection's box in a copy of the picture of another size, (width, height)."""
        height, width = self.image.shape[:2]
        x0, y0, x1, y1 = self.found.pred_boxes.tensor[index].tolist()
        across, down = size[0] / width, size[1] / height
        return x0 * across, y0 * down, x1 * across, y1 * down


def read_upload(path: str, max_pixels: float) -> np.ndarray:
    """Read a picture that somebody sent: (H, W, 3) uint8, BGR.

    Raises:
        IONError: it is no picture, or has more pixels, which is told from its header alone.
    """
    name = Path(path).name
    try:
        with open(path, "rb") as file, open_picture(file) as picture:
            width, height = picture.size
    except Image.DecompressionBombError as error:
        raise IONError(f"{name} has far too many pixels ({error}); make it smaller.") from error
    except DECODE_ERRORS as error:
        raise IONError(
            f"{name} is not a picture of a usual format; give a JPEG, PNG, WebP or TIFF, say."
        ) from error
    if width * height > max_pixels:
        raise IONError(
            f"{name} has {width} x {height} pixels, {width * height / 1e6:.1f} million, and this "
            f"page takes {max_pixels / 1e6:g} million; make the picture smaller."
        )
    try:
        return read_image(path, "BGR")
    except UnreadableImageError as error:
        raise IONError(
            f"{name} cannot be decoded: it is damaged, or has more than 8 bits a channel; save it "
            "anew as JPEG or PNG."
        ) from error


class ModelTrial:
    """A detector for pictures given one by one, and views of what it found."""

    def __init__(self, cfg: CfgNode, predictor: IONPredictor, names: Sequence[str]) -> None:
        """
        Args:
            cfg: the model's config.
            predictor: made of it.
            names: of the classes, by id.
        """
        self.names = list(names)
        self._cfg, self._predictor = cfg, predictor
        model = predictor.model
        self._model = model.model if isinstance(model, GeneralizedRCNNWithTTA) else model

    @property
    def has_context(self) -> bool:
        """Whether there is a context, which :meth:`draw_context` shows."""
        return isinstance(getattr(self._model, "backbone", None), ContextBackbone)

    def detect(self, image: np.ndarray) -> Seen:
        """Find the objects of a picture, (H, W, 3) uint8, BGR."""
        found = self._predictor(image)["instances"]
        return Seen(image, found[found.scores.argsort(descending=True)])

    def draw(self, seen: Seen, threshold: float) -> Image.Image:
        """Draw the detections with at least this score, the surest on top."""
        names, marks = dict(enumerate(self.names)), marks_of(seen.found, threshold)
        return draw_panel(seen.image[:, :, ::-1], marks, names, _SIDE)

    def name(self, seen: Seen, index: int) -> str:
        """Class and score of a detection."""
        label = self.names[int(seen.found.pred_classes[index])]
        return f"{label} {float(seen.found.scores[index]):.2f}"

    def class_table(self, seen: Seen, threshold: float) -> str:
        """An HTML table of class, number and best score, or a sentence if nothing was found."""
        found = seen.above(threshold)
        if not len(found):
            surest = f"; the surest is {self.name(seen, 0)}" if len(seen.found) else ""
            told = f"No detection has a score of {threshold:.2f} or more{surest}."
            return f"<p>{html.escape(told)}</p>"
        labels, scores = found.pred_classes.numpy(), found.scores.numpy()
        rows = [(-(labels == k).sum(), k, scores[labels == k].max()) for k in set(labels.tolist())]
        cells = "".join(
            f'<tr><td><span style="color: rgb{class_color(k)}">&#9632;</span> '
            f"{html.escape(self.names[k])}</td><td>{-number}</td><td>{best:.2f}</td></tr>"
            for number, k, best in sorted(rows)
        )
        head = "<th>class</th><th>number</th><th>best score</th>"
        return f"<table><thead><tr>{head}</tr></thead><tbody>{cells}</tbody></table>"

    def pick(self, seen: Seen, threshold: float, x: float, y: float) -> int | None:
        """Index of the smallest box over a pixel of :meth:`draw`'s drawing; None for none."""
        height, width = seen.image.shape[:2]
        scale = _SIDE / max(height, width)
        size = width * scale, height * scale
        boxes = [seen.box(index, size) for index in range(len(seen.above(threshold)))]
        areas = {
            index: (x1 - x0) * (y1 - y0)
            for index, (x0, y0, x1, y1) in enumerate(boxes)
            if x0 <= x <= x1 and y0 <= y <= y1
        }
        return min(areas, key=areas.__getitem__, default=None)

    def draw_context(self, seen: Seen, index: int) -> tuple[Image.Image | None, str]:
        """Show which pixels move the context in the middle of a detection, and say it in words.

        It is the effective receptive field of that cell, as reports have it, for this one picture.
        There is no drawing where there is nothing to show.
        """
        if not self.has_context:
            return None, NO_CONTEXT
        x0, y0, x1, y1 = seen.box(index)
        inputs = {"image": self._predictor.preprocess(seen.image)}
        samples = [Sample({}, inputs, ground_truth_from_dict({}))]
        middle = (y0 + y1) / 2, (x0 + x1) / 2
        field = measure_fields(self._cfg, self._model, samples, middle)[-1]
        if not field.measured.any():
            return None, "The context there moves with no pixel: all its channels are 0."
        return self._draw_field(seen, index, field), _tell_field(seen, index, field)

    def _draw_field(self, seen: Seen, index: int, field: Field) -> Image.Image:
        """The field over the picture, with the detection's box and the cell."""
        colors = heat_map(field.measured, decades=_DECADES, spot=field.square)
        shown = Image.open(io.BytesIO(colors)).convert("RGB")
        # In gray, so that the hue is the map's.
        picture = Image.fromarray(np.ascontiguousarray(seen.image[:, :, ::-1])).convert("L")
        picture = picture.resize(shown.size).convert("RGB")
        blended = np.asarray(Image.blend(picture, shown, _OPACITY))
        label = int(seen.found.pred_classes[index])
        marks = Marks([seen.box(index, shown.size)], [label])
        return draw_panel(blended, marks, {label: self.names[label]}, _SIDE)


def _tell_field(seen: Seen, index: int, field: Field) -> str:
    height, width = field.measured.shape
    x0, y0, x1, y1 = (round(side) for side in seen.box(index, (width, height)))
    outside = 1 - field.measured[y0:y1, x0:x1].sum() / field.measured.sum()
    return (
        "How strongly each pixel moves the context in the green cell, from dark (a thousandth of "
        f"the most, or less) to pale yellow. {100 * outside:.1f} % of it lies outside the box."
    )
