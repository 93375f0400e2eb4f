"""Result tables as text: figures in percent with one decimal, "-" where there is none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tabulate import tabulate

from ion_d2.evaluation.proposal_recall import ProposalRecall
from ion_d2.evaluation.voc_ap import VOCResult

_SPELLED = {"11point": "11-point", "area": "area"}


def format_percent(value: float) -> str:
    """A figure in percent with one decimal, or "-" for NaN."""
    return "-" if math.isnan(value) else f"{value:.1f}"


def voc_table(result: VOCResult, metric: str) -> str:
    """Average precision of every class, with the mean as last row.

    Args:
        result: evaluated at least at IoU 0.5 and 0.75.
        metric: the definition ("11point" or "area") that the columns AP75 and AP use.

    Returns:
        A table with the columns class, images with it, boxes to be found, AP50 by both
        definitions, AP75 and AP (mean over the thresholds). The mean leaves out classes without a
        box to be found.
    """
    columns = {
        "AP50 11-point": ("11point", 0.5),
        "AP50 area": ("area", 0.5),
        f"AP75 {_SPELLED[metric]}": (metric, 0.75),
        f"AP {_SPELLED[metric]}": (metric, None),
    }
    figures = [result.class_ap(name, threshold) for name, threshold in columns.values()]
    rows = [
        [name, str(images), str(boxes), *(format_percent(100 * f) for f in class_figures)]
        for name, images, boxes, *class_figures in zip(
            result.class_names, result.num_images, result.num_positives, *figures
        )
    ]
    means = [
        format_percent(100 * result.mean_ap(name, threshold))
        for name, threshold in columns.values()
    ]
    rows.append(["mean", "", str(result.num_positives.sum()), *means])
    return _table(["class", "images", "boxes", *columns], rows)


def metrics_table(metrics: Mapping[str, float]) -> str:
    """One row of named figures.

    Args:
        metrics: name -> figure in percent.

    Returns:
        A table with the names as headers.
    """
    return _table(
        list(metrics), [[format_percent(value) for value in metrics.values()]], first_text=False
    )


def class_table(values: Mapping[str, float], value_name: str, mean: float) -> str:
    """One figure per class, with the mean as last row.

    Args:
        values: class name -> figure in percent.
        value_name: header of the figures' column.
        mean: the mean to print, in percent.

    Returns:
        A table with two columns.
    """
    rows = [[name, format_percent(value)] for name, value in [*values.items(), ("mean", mean)]]
    return _table(["class", value_name], rows)


def recall_table(result: ProposalRecall) -> str:
    """Recall of proposals for each number of them.

    Args:
        result: evaluated at least at IoU 0.5 and 0.7.

    Returns:
        A table with the columns proposals (the most an image), mean number of them, recall at IoU
        0.5 and 0.7, and average recall.
    """
    columns = (result.at(0.5), result.at(0.7), result.average)
    rows = [
        [str(limit), f"{number:.1f}", *(format_percent(100 * f) for f in figures)]
        for limit, number, *figures in zip(result.limits, result.mean_number, *columns)
    ]
    headers = ["proposals", "per image", "recall IoU 0.5", "recall IoU 0.7", "AR 0.5:0.95"]
    return _table(headers, rows, first_text=False)


def _table(headers: Sequence[str], rows: Sequence[list[str]], first_text: bool = True) -> str:
    alignment = ["right"] * len(headers)
    if first_text:
        alignment[0] = "left"
    # The cells are finished text; tabulate would otherwise read numbers in them (a class called
    # "1e3") anew.
    return tabulate(
        rows, headers=headers, tablefmt="github", colalign=alignment, disable_numparse=True
    )
