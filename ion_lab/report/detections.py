"""Detections beside ground truth, of images that went well and of those that went worst."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from ion_d2.data.readable import read_image
from ion_d2.engine.drawing import Marks, class_color, draw_panel
from ion_d2.engine.pictures import truth_of
from ion_d2.evaluation.image_boxes import Detections

from .document import Figure, Part, Picture, Section, Text
from .evaluated_run import Outcome
from .heatmap import encode
from .ranking import Count, choose_images, count_image
from .scores import SURE

# Images of each kind, and the longer side of a picture in pixels.
_BEST, _TYPICAL, _WORST, _SIDE = 2, 2, 4, 480
_TITLES = {"best": "Best", "typical": "Typical", "worst": "Worst"}


def detection_section(outcome: Outcome) -> Section:
    """Show images of an evaluated dataset, chosen by F1, with their labels and detections.

    Raises:
        IONError: an image cannot be read.
    """
    assert outcome.found is not None
    found = outcome.found
    counts = {key: count_image(truth, found[key], SURE) for key, truth in outcome.truth.items()}
    text = (
        f"Detections with a score of at least {SURE:g} against the labels at IoU 0.5. Images are "
        "ranked by F1, the harmonic mean of precision and recall in the image; typical ones come "
        "from the middle of that ranking."
    )
    parts: list[Part] = [Text([text])]
    for kind, keys in choose_images(counts, _BEST, _TYPICAL, _WORST).items():
        figures = [_figure(outcome, key, found[key], counts[key]) for key in keys]
        if figures:
            parts.append(Section(_TITLES[kind], figures))
    return Section("Detections beside ground truth", parts)


def _figure(outcome: Outcome, key: Hashable, found: Detections, count: Count) -> Figure:
    record = outcome.records[key]
    image = read_image(record["file_name"], "RGB")
    truth, marks = truth_of(record), _sure(found)
    names = dict(enumerate(outcome.class_names))
    pictures = [
        _picture(image, truth, names, "Ground truth"),
        _picture(image, marks, names, "Detections"),
    ]
    alarms = f"{count.wrong} false alarm{'' if count.wrong == 1 else 's'}"
    caption = (
        f"{key}: {count.right} of {count.right + count.missed} objects found, {alarms}, F1 "
        f"{count.f1:.2f}."
    )
    shown = sorted({*truth.classes, *marks.classes})
    legend = [(names[label], class_color(label)) for label in shown]
    return Figure(pictures, caption, width=300, legend=legend)


def _picture(image: Any, marks: Marks, names: dict[int, str], label: str) -> Picture:
    data = encode(draw_panel(image, marks, names, _SIDE), "JPEG")
    kinds = {names[k]: marks.classes.count(k) for k in sorted(set(marks.classes))}
    listed = ", ".join(f"{number} {name}" for name, number in kinds.items()) or "no boxes"
    return Picture(data, f"{label}: {listed}.", label)


def _sure(found: Detections) -> Marks:
    """The detections to draw, the surest last, so that it is on top."""
    order = [i for i in found.scores.argsort() if found.scores[i] >= SURE]
    return Marks(
        found.boxes[order].tolist(), found.classes[order].tolist(), found.scores[order].tolist()
    )
