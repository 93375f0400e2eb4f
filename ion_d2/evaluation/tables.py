"""Result tables: figures in percent with one decimal, "-" where there is none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tabulate import tabulate

from .proposal_recall import ProposalRecall

_SPELLED = {"11point": "11-point", "area": "area"}


class Cells(NamedTuple):
    """The finished text of a table, with a last row of means."""

    headers: list[str]
    rows: list[list[str]]
    footer: list[str]


def format_percent(value: float | None) -> str:
    """A figure in percent with one decimal; "-" for NaN, or None as result files have it."""
    return "-" if value is None or math.isnan(value) else f"{value:.1f}"


def voc_cells(results: Mapping[str, Any]) -> Cells:
    """Average precision of every class: AP50 by VOC's definitions, and all by the chosen one.

    Args:
        results: what :class:`~ion_d2.evaluation.IONVOCEvaluator` writes to voc_results.json.
    """
    metric, classes = results["metric"], results["classes"]
    chosen = [(metric, figure) for figure in ("AP50", "AP75", "AP")]
    columns = list(dict.fromkeys([("11point", "AP50"), ("area", "AP50"), *chosen]))
    rows = [
        [name, str(entry["num_images"]), str(entry["num_boxes"])]
        + [format_percent(entry[kind][figure]) for kind, figure in columns]
        for name, entry in classes.items()
    ]
    total = str(sum(entry["num_boxes"] for entry in classes.values()))
    means = [format_percent(results["mean"][kind][figure]) for kind, figure in columns]
    headers = [f"{figure} {_SPELLED[kind]}" for kind, figure in columns]
    return Cells(["class", "images", "boxes", *headers], rows, ["mean", "", total, *means])


def class_cells(values: Mapping[str, float | None], value_name: str, mean: float | None) -> Cells:
    """One figure in percent for each class."""
    rows = [[name, format_percent(value)] for name, value in values.items()]
    return Cells(["class", value_name], rows, ["mean", format_percent(mean)])


def text_table(cells: Cells) -> str:
    """A table of classes as text."""
    return _table(cells.headers, [*cells.rows, cells.footer])


def metrics_table(metrics: Mapping[str, float]) -> str:
    """One row of figures in percent under their names."""
    row = [format_percent(value) for value in metrics.values()]
    return _table(list(metrics), [row], first_text=False)


def recall_table(result: ProposalRecall) -> str:
    """Recall of proposals, evaluated at least at IoU 0.5 and 0.7, for each number of them."""
    columns = (result.at(0.5), result.at(0.7), result.average)
    rows = [
        [str(limit), f"{number:.1f}", *(format_percent(100 * f) for f in figures)]
        for limit, number, *figures in zip(result.limits, result.mean_number, *columns)
    ]
    headers = ["proposals", "per image", "recall IoU 0.5", "recall IoU 0.7", "AR 0.5:0.95"]
    return _table(headers, rows, first_text=False)


def _table(headers: Sequence[str], rows: Sequence[list[str]], first_text: bool = True) -> str:
    alignment = ["left" if first_text else "right", *["right"] * (len(headers) - 1)]
    # The cells are finished text; tabulate would otherwise read numbers in them (a class called
    # "1e3") anew.
    return tabulate(
        rows, headers=headers, tablefmt="github", colalign=alignment, disable_numparse=True
    )
