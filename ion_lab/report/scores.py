"""Average precision of a run: headline, classes, sizes, curves, segmentation."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
from pycocotools.cocoeval import COCOeval

from ion_d2.errors import IONError
from ion_d2.evaluation.coco_style import coco_figures, evaluate_coco_content
from ion_d2.evaluation.tables import Cells, class_cells, format_percent, voc_cells

from .charts import Line, lines_plot
from .document import Facts, Figure, Part, Picture, Section, Table, Text
from .evaluated_run import STALE, Outcome, fields_of, read_json
from .precision_recall import Curve, coco_curve, voc_curve

# Score from which a detection counts as made, in curves and pictures.
SURE = 0.5
# Classes of which a curve is shown at most.
_MAX_CURVES = 20
# Name of a size, what it means, and COCO's figures of it.
_SIZES = (
    ("all", "any", "AP", "AR100"),
    ("small", "below 32 x 32 pixels", "APs", "ARs"),
    ("medium", "32 x 32 to 96 x 96", "APm", "ARm"),
    ("large", "96 x 96 and more", "APl", "ARl"),
)


def score_parts(outcome: Outcome) -> list[Part]:
    """Headline, tables and curves of an evaluated dataset, or a sentence that it was not evaluated.

    Raises:
        IONError: a result file is missing or broken.
    """
    if outcome.found is None:
        text = (
            f"This run was not evaluated on {outcome.dataset}: there are no detections in "
            f"{outcome.folder}. train_net.py --eval-only with TEST.REPORT True does both."
        )
        return [Text([text])]
    if outcome.records and not outcome.labeled:
        text = f"{outcome.dataset} has no annotations, so there are no figures."
        parts: list[Part] = [Text([text])]
    elif outcome.content is None:
        parts = _voc_parts(outcome)
    else:
        parts = _coco_parts(outcome)
    return [*parts, *_segmentation(outcome)]


def _voc_parts(outcome: Outcome) -> list[Part]:
    path = os.path.join(outcome.folder, "voc_results.json")
    results = read_json(path)
    with fields_of(path):
        if results is None or list(results["classes"]) != outcome.class_names:
            raise IONError(
                f"{path} is not there or has other classes than {outcome.dataset}; {STALE}."
            )
        boxes = [entry["num_boxes"] for entry in results["classes"].values()]
        count, coco, cells = results["num_images"], results["coco"], voc_cells(results)
        headline = _headline(results["mean"][results["metric"]], coco)
        sizes = _sizes(coco, "An object's size is the area of its box.")
    curves = [voc_curve(outcome, i, SURE) for i in range(len(outcome.class_names))]
    caption = (
        f"Average precision per class on {count} images, in percent, by the two "
        "definitions of VOC: at 11 recalls (2007) and the area under the curve (2010 on). AP is "
        "the mean over IoU 0.50 to 0.95."
    )
    return [
        headline,
        _table(caption, cells),
        sizes,
        _curves(outcome, boxes, curves, "as the VOC devkit counts them"),
    ]


def _table(caption: str, cells: Cells) -> Table:
    return Table(caption, cells.headers, cells.rows, footer=cells.footer)


def _coco_parts(outcome: Outcome) -> list[Part]:
    assert outcome.content is not None
    evaluation = evaluate_coco_content(outcome.content, outcome.raw, outcome.records)
    figures = coco_figures(evaluation)
    boxes = _count_boxes(outcome)
    # The evaluation's classes have the order of their ids.
    ids = [category["id"] for category in outcome.content["categories"]]
    places = [sorted(ids).index(each) for each in ids]
    curves = [coco_curve(evaluation, place, SURE) for place in places]
    caption = (
        f"Average precision per class on {len(outcome.records)} images, in percent, as COCO "
        "defines it. AP is the mean over IoU 0.50 to 0.95."
    )
    return [
        _headline(figures, figures),
        _table(caption, _coco_cells(outcome, evaluation, places, boxes, figures)),
        _sizes(figures, "An object's size is its area in the annotation file."),
        _curves(outcome, boxes, curves, "as COCO counts them, at its 101 recalls"),
    ]


def _count_boxes(outcome: Outcome) -> list[int]:
    """Labeled boxes of each class that are to be found."""
    classes = [t.classes[~t.difficult] for t in outcome.truth.values()]
    joined = np.concatenate([np.zeros(0, dtype=np.int64), *classes])
    return np.bincount(joined, minlength=len(outcome.class_names)).tolist()


def _coco_cells(
    outcome: Outcome,
    evaluation: COCOeval,
    places: Sequence[int],
    boxes: Sequence[int],
    figures: Mapping[str, float],
) -> Cells:
    precision = evaluation.eval["precision"][:, :, places, 0, -1]  # IoU, recall, class
    rows = []
    for index, name in enumerate(outcome.class_names):
        by_iou = [p[p > -1].mean() if (p > -1).any() else np.nan for p in precision[:, :, index]]
        figures_of = (by_iou[0], by_iou[5], np.mean(by_iou))
        rows.append([name, str(boxes[index]), *(format_percent(100 * f) for f in figures_of)])
    names = ["AP50", "AP75", "AP"]
    footer = ["mean", str(sum(boxes)), *(format_percent(figures[name]) for name in names)]
    return Cells(["class", "boxes", *names], rows, footer)


def _headline(mean: Mapping[str, float | None], coco: Mapping[str, float | None]) -> Facts:
    items = [(name, format_percent(mean[name])) for name in ("AP", "AP50", "AP75")]
    items += [(f"AP {name}", format_percent(coco[ap])) for name, _, ap, _ in _SIZES[1:]]
    return Facts(items, large=True)


def _sizes(coco: Mapping[str, float | None], definition: str) -> Table:
    rows = [[*words, *(format_percent(coco[f]) for f in (ap, ar))] for *words, ap, ar in _SIZES]
    caption = (
        "Average precision and recall by the size of the object, as COCO defines them (IoU 0.50 to "
        f"0.95, 100 detections an image), in percent. {definition} A dash: there is no such object."
    )
    return Table(caption, ["objects", "size", "AP", "AR"], rows, text_columns=2)


def _curves(
    outcome: Outcome, boxes: Sequence[int], curves: Sequence[Curve | None], how: str
) -> Part:
    """A small plot for each class, those with the most boxes if there are many."""
    order = sorted(range(len(curves)), key=lambda i: -boxes[i])
    shown = [(outcome.class_names[i], curves[i]) for i in sorted(order[:_MAX_CURVES])]
    pictures = [_curve_picture(name, curve) for name, curve in shown if curve is not None]
    if not pictures:
        return Text(
            ["No precision-recall curve can be drawn: no class with boxes was found anywhere."]
        )
    caption = (
        f"Precision against recall at IoU 0.5, {how}, from the surest detection (left) to the "
        f"least sure. The dot is where the score is {SURE:g}. A curve that ends early misses the "
        "rest of the objects at any score."
    )
    if len(pictures) < len(curves):
        caption += (
            f" Shown: {len(pictures)} of {len(curves)} classes, those with the most boxes of "
            "which something was found."
        )
    return Figure(pictures, caption, width=250)


def _curve_picture(name: str, curve: Curve) -> Picture:
    line = Line("", curve.recall, curve.precision, mark=curve.sure)
    drawn = lines_plot(
        [line], "recall", "precision", size=(280, 220), xlim=(0, 1.02), ylim=(0, 1.04)
    )
    plot = drawn.svg()
    alt = f"Precision-recall curve of {name}; recall ends at {curve.recall[-1]:.2f}"
    if curve.sure is not None:
        precision, recall = curve.precision[curve.sure], curve.recall[curve.sure]
        alt += f"; precision {precision:.2f} at recall {recall:.2f} for scores from {SURE:g}"
    return Picture(plot, alt + ".", name)


def _segmentation(outcome: Outcome) -> list[Part]:
    """Mean IoU of the segmentation head, where it was evaluated."""
    path = os.path.join(outcome.folder, "sem_seg_results.json")
    results = read_json(path)
    if results is None:
        return []
    with fields_of(path):
        caption = (
            f"Intersection over union per class on {results['num_images']} images, in "
            f"percent; {format_percent(results['pACC'])} of all pixels are right."
        )
        cells = class_cells(results["IoU"], "IoU", results["mIoU"])
    return [Section("Segmentation", [_table(caption, cells)])]
