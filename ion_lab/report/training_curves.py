"""Curves of a training, from its metrics.json."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from tabulate import tabulate

from .charts import Line, Plot, lines_plot
from .document import Figure, Part, Picture, Section, Text

logger = logging.getLogger(__name__)

_MOST = 1e308  # a whole number beyond is no figure
_AP = ("bbox/AP", "bbox/AP50", "bbox/AP75")
_VALIDATION = re.compile(
    r"(.*/)?((bbox|segm|keypoints)/AP(50|75)?|sem_seg/mIoU|validation/total_loss)"
)

Series = dict[str, tuple[np.ndarray, np.ndarray]]


def read_metrics(path: str) -> Series:
    """Read the figures that Detectron2 writes while it trains.

    A training that is resumed, or begun anew, repeats iterations: what was written last counts, and
    what went beyond it before does not. Lines that are not JSON, as a killed process leaves behind,
    are passed over with a warning.

    Args:
        path: a file of one JSON object a line; it need not exist.

    Returns:
        Name of a figure -> (iterations, values), sorted by iteration.
    """
    if not os.path.isfile(path):
        return {}
    with open(path, encoding="utf-8", errors="replace") as file:
        entries = [_parse(line) for line in file if line.strip()]
    broken = entries.count(None)
    if broken:
        logger.warning("%d lines of %s are incomplete and were passed over.", broken, path)
    found: dict[str, dict[int, float]] = {}
    reached = -1
    for entry in filter(None, entries):
        now = entry["iteration"]
        if "total_loss" in entry:
            if now <= reached:
                found = {n: {i: v for i, v in it.items() if i < now} for n, it in found.items()}
            reached = now
        for name, value in entry.items():
            if name != "iteration" and isinstance(value, (int, float)) and not abs(value) > _MOST:
                found.setdefault(name, {})[now] = float(value)
    return {name: _columns(values) for name, values in found.items() if values}


def _parse(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) and isinstance(entry.get("iteration"), int) else None


def _columns(values: dict[int, float]) -> tuple[np.ndarray, np.ndarray]:
    iterations = sorted(values)
    return np.array(iterations), np.array([values[i] for i in iterations])


def training_section(series: Series) -> Section:
    """The losses, the learning rate and, if it was evaluated on the way, AP of a training."""
    if "total_loss" not in series:
        text = "There is no metrics.json of a training in this folder."
        return Section("Training", [Text([text])])
    plots = training_plots(series)
    return Section("Training", [*_losses(series, plots), *_progress(series, plots)])


def training_plots(series: Series) -> dict[str, Plot]:
    """Heading -> plot: the losses and, where there are any, the learning rate and AP."""
    losses = sorted(name for name in series if name.startswith("loss_"))
    losses += sorted(name for name in series if name.endswith("validation/total_loss"))
    shown: dict[str, tuple[list[str], str, dict[str, Any]]] = {
        "Losses": (["total_loss", *losses], "loss", {"yscale": "log"}),
        "Learning rate": (["lr"], "learning rate", {}),
        "AP": ([name for name in series if name.endswith(_AP)], "AP (percent)", {}),
    }
    plots: dict[str, Plot] = {}
    for heading, (names, label, options) in shown.items():
        there = [name for name in names if name in series]
        lines = [Line(name if name != "lr" else "", *series[name]) for name in there]
        if lines:
            options["markers"] = heading == "AP" or len(lines[0].x) == 1
            plots[heading] = lines_plot(lines, "iteration", label, size=(400, 330), **options)
    return plots


def validation_table(series: Series) -> str:
    """Markdown with the main figures of each evaluation, a line for each."""
    names = sorted(filter(_VALIDATION.fullmatch, series))
    columns = [dict(zip(*series[name])) for name in names]
    rows = [[i, *(column.get(i) for column in columns)] for i in sorted(set().union(*columns))]
    formats = ("d", *(".4g" if name.endswith("loss") else ".1f" for name in names))
    table = tabulate(rows, ["iteration", *names], "github", floatfmt=formats, missingval="-")
    return f"{table}\n" if names else "Nothing was evaluated yet.\n"


def _losses(series: Series, plots: Mapping[str, Plot]) -> list[Part]:
    first, last = series["total_loss"][1][[0, -1]]
    alts = {"Losses": f"Losses by iteration; the total goes from {first:.3g} to {last:.3g}."}
    if "lr" in series:
        highest = series["lr"][1].max()
        alts["Learning rate"] = f"Learning rate by iteration, at most {highest:.3g}."
    pictures = [Picture(plots[name].svg(), alt, name) for name, alt in alts.items()]
    return [Figure(pictures, _caption(series), width=340)]


def _caption(series: Series) -> str:
    iterations, losses = series["total_loss"]
    text = (
        f"{int(iterations[-1]) + 1} iterations; the total loss goes from {losses[0]:.3g} to "
        f"{losses[-1]:.3g}. Each point is the median of the iterations since the one before; the "
        "scale is logarithmic."
    )
    if "time" in series:
        text += f" An iteration took {np.median(series['time'][1]):.3g} s (median)."
    return text


def _progress(series: Series, plots: Mapping[str, Plot]) -> list[Part]:
    """AP of every evaluation, if there were several."""
    names = [name for name in series if name.endswith(_AP)]
    if not names or len(series[names[0]][0]) < 2:
        return []
    values = series[names[0]][1]
    alt = f"{names[0]} by iteration, from {values[0]:.1f} to {values[-1]:.1f}, at most "
    caption = f"Each dot is an evaluation on the test images; {names[0]} ends at {values[-1]:.1f}."
    picture = Picture(plots["AP"].svg(), f"{alt}{np.nanmax(values):.1f}.", "AP")
    return [Figure([picture], caption, width=340)]
