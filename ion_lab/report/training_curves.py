"""Curves of a training, from its metrics.json."""

from __future__ import annotations

import json
import logging
import os
from typing import Any

import numpy as np

from .charts import Line, line_plot
from .document import Figure, Part, Picture, Section, Text

logger = logging.getLogger(__name__)

_AP = ("bbox/AP", "bbox/AP50", "bbox/AP75")

Series = dict[str, tuple[np.ndarray, np.ndarray]]


def read_metrics(path: str) -> Series:
    """Read the figures that Detectron2 writes while it trains.

    A resumed training repeats iterations; what was written last counts. Lines that are not JSON,
    as a killed process leaves behind, are passed over with a warning.

    Args:
        path: a file of one JSON object a line; it need not exist.

    Returns:
        Name of a figure -> (iterations, values), sorted by iteration.
    """
    if not os.path.isfile(path):
        return {}
    with open(path, encoding="utf-8") as file:
        entries = [_parse(line) for line in file if line.strip()]
    broken = entries.count(None)
    if broken:
        logger.warning("%d lines of %s are incomplete and were passed over.", broken, path)
    found: dict[str, dict[int, float]] = {}
    for entry in filter(None, entries):
        for name, value in entry.items():
            if name != "iteration" and isinstance(value, (int, float)):
                found.setdefault(name, {})[entry["iteration"]] = float(value)
    return {name: _columns(values) for name, values in found.items()}


def _parse(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and "iteration" in entry else None


def _columns(values: dict[int, float]) -> tuple[np.ndarray, np.ndarray]:
    iterations = sorted(values)
    return np.array(iterations), np.array([values[i] for i in iterations])


def training_section(series: Series) -> Section:
    """The losses, the learning rate and, if it was evaluated on the way, AP of a training."""
    if "total_loss" not in series:
        text = "There is no metrics.json of a training in this folder."
        return Section("Training", [Text([text])])
    return Section("Training", [*_losses(series), *_progress(series)])


def _losses(series: Series) -> list[Part]:
    losses = sorted(name for name in series if name.startswith("loss_"))
    names = ["total_loss", *losses, *(n for n in ("validation/total_loss",) if n in series)]
    total = series["total_loss"]
    lines = [Line(name, *series[name]) for name in names]
    plot = line_plot(lines, "iteration", "loss", yscale="log", size=(400, 330))
    first, last = total[1][0], total[1][-1]
    alt = f"Losses by iteration; the total falls from {first:.3g} to {last:.3g}."
    pictures = [Picture(plot, alt, "Losses")]
    if "lr" in series:
        rate = line_plot([Line("", *series["lr"])], "iteration", "learning rate", size=(400, 330))
        alt = f"Learning rate by iteration, at most {series['lr'][1].max():.3g}."
        pictures.append(Picture(rate, alt, "Learning rate"))
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


def _progress(series: Series) -> list[Part]:
    """AP of every evaluation, if there were several."""
    names = [name for name in series if name.endswith(_AP)]
    if not names or len(series[names[0]][0]) < 2:
        return []
    lines = [Line(name, *series[name]) for name in names]
    plot = line_plot(lines, "iteration", "AP (percent)", markers=True, size=(400, 300))
    values = series[names[0]][1]
    alt = f"{names[0]} by iteration, from {values[0]:.1f} to {values[-1]:.1f}, at most "
    caption = f"Each dot is an evaluation on the test images; {names[0]} ends at {values[-1]:.1f}."
    return [Figure([Picture(plot, f"{alt}{np.nanmax(values):.1f}.", "AP")], caption, width=340)]
