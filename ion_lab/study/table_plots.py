"""Pictures of a table: bars by row, or lines over the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ion_lab.report.charts import literal, percent_end
from ion_lab.study.store import file_name

# Okabe and Ito's colors, which people with any color vision tell apart; markers and hatches say
# the same without color.
_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_HATCHES = ("", "//", "..", "xx", "\\\\", "++", "oo", "--")
_STYLE = {"font.size": 11, "axes.spines.top": False, "axes.spines.right": False}


def draw_plots(results: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw a table, one picture for each data of bars, or one of lines.

    Args:
        results: as :func:`ion_lab.study.results.collect_results` gives them.
        folder: to write PNG files into.

    Returns:
        The files.
    """
    with matplotlib.rc_context(_STYLE):
        if results["plot"] == "lines":
            return [_save(_lines(results), folder / f"{results['table']}.png")]
        several = len(results["data"]) > 1
        return [
            _save(
                _bars(results, data),
                folder / f"{results['table']}{f'_{file_name(data)}' if several else ''}.png",
            )
            for data in results["data"]
        ]


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path, dpi=150, bbox_inches="tight")
    return path


def _bars(results: Mapping[str, Any], data: str) -> Figure:
    """A group of bars for each row, with a dot for each seed."""
    rows = [row for row in results["rows"] if row["data"] == data]
    columns = results["columns"]
    figure = Figure(figsize=(8, 1.2 + len(rows) * (0.16 * len(columns) + 0.22)))
    axes = figure.subplots()
    height = 0.8 / len(columns)
    for number, heading in enumerate(columns):
        at = [row + (number - (len(columns) - 1) / 2) * height for row in range(len(rows))]
        _bar_column(axes, at, height, rows, heading, number)
    axes.set_yticks(range(len(rows)), [literal(row["row"]) for row in rows])
    axes.invert_yaxis()
    tops = [f["mean"] + (f["spread"] or 0.0) for f in _figures(rows) if f["mean"] is not None]
    axes.set_xlim(0, percent_end(tops))
    axes.set_xlabel("percent; bar: mean, whisker: standard deviation, dot: a seed")
    axes.grid(axis="x", alpha=0.3)
    title = results["title"] if len(results["data"]) == 1 else f"{results['title']}: {data}"
    _finish(axes, title, len(columns))
    return figure


def _bar_column(
    axes: Axes,
    at: Sequence[float],
    height: float,
    rows: Sequence[Mapping[str, Any]],
    heading: str,
    number: int,
) -> None:
    figures = [row["figures"][heading] for row in rows]
    axes.barh(
        at,
        [figure["mean"] or 0.0 for figure in figures],
        height,
        xerr=[figure["spread"] or 0.0 for figure in figures],
        label=literal(heading),
        color=_COLORS[number % len(_COLORS)],
        hatch=_HATCHES[number % len(_HATCHES)],
        edgecolor="white",
        error_kw={"ecolor": "black", "capsize": 2},
    )
    for place, row in zip(at, rows):
        values = _of_seeds(row, heading)
        dot = {
            "markersize": 4,
            "markerfacecolor": "white",
            "markeredgecolor": "black",
            "clip_on": False,
        }
        axes.plot(values, [place] * len(values), "o", **dot)


def _lines(results: Mapping[str, Any]) -> Figure:
    """A line for each row over the data, one plot below the other for each column."""
    columns = results["columns"]
    figure = Figure(figsize=(8, 1 + 3.5 * len(columns)))
    plots = figure.subplots(len(columns), 1, squeeze=False)[:, 0]
    for axes, heading in zip(plots, columns):
        names = list(dict.fromkeys(row["row"] for row in results["rows"]))
        for number, name in enumerate(names):
            # Side by side, so that no whisker hides another.
            _line(axes, results, name, heading, number, (number - (len(names) - 1) / 2) * 0.06)
        axes.set_xticks(range(len(results["data"])), [literal(data) for data in results["data"]])
        axes.set_ylim(0, 103)
        axes.set_ylabel(literal(f"{heading}, percent"))
        axes.grid(axis="y", alpha=0.3)
        _finish(axes, results["title"] if axes is plots[0] else "", len(names))
    return figure


def _line(
    axes: Axes, results: Mapping[str, Any], name: str, heading: str, number: int, shift: float
) -> None:
    rows = [r for r in results["rows"] if r["row"] == name and _of_seeds(r, heading)]
    axes.errorbar(
        [results["data"].index(row["data"]) + shift for row in rows],
        [row["figures"][heading]["mean"] for row in rows],
        [row["figures"][heading]["spread"] or 0.0 for row in rows],
        label=literal(name),
        color=_COLORS[number % len(_COLORS)],
        marker=_MARKERS[number % len(_MARKERS)],
        capsize=3,
    )


def _finish(axes: Axes, title: str, entries: int) -> None:
    axes.set_title(literal(title), loc="left", pad=12 + 18 * -(-entries // 4))
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncol=4, frameon=False)


def _figures(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [figure for row in rows for figure in row["figures"].values()]


def _of_seeds(row: Mapping[str, Any], heading: str) -> list[float]:
    values = [run["figures"].get(heading) for run in row["runs"]]
    return [value for value in values if value is not None]
