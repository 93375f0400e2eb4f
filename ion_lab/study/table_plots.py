"""Pictures of a table: bars by row, or lines over the data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ion_d2.files import distinct_file_names
from ion_lab.report.charts import Bar, Line, Plot, bars_plot, lines_plot, literal, save_png
from ion_lab.study.cells import Results, mean_text


def draw_plots(results: Results, folder: Path) -> list[Path]:
    """Draw a table: a PNG file of bars for each data that has figures, or one of lines."""
    table, title = results["table"], results["title"]
    if results["plot"] == "lines":
        pictures = {table: (title, _lines_of(results))}
    elif len(results["data"]) == 1:
        pictures = {table: (title, _bars_of(results, results["data"][0]))}
    else:
        names = distinct_file_names(results["data"])
        pictures = {
            f"{table}_{name}": (f"{title}: {data}", _bars_of(results, data))
            for name, data in zip(names, results["data"])
        }
    paths = []
    for name, (heading, plots) in pictures.items():
        if plots:
            paths.append(folder / f"{name}.png")
            save_png(paths[-1], heading, plots)
    return paths


def _bars_of(results: Results, data: str) -> dict[str, Plot]:
    """Heading -> a bar for each row that has a figure, with a dot for each seed."""
    plots = {}
    for heading in results["columns"]:
        bars = [_bar(row, heading) for row in _with_figure(results, heading) if row["data"] == data]
        if bars:
            highest = max(bar.length + (bar.spread or 0.0) for bar in bars)
            end = 100.0 if highest > 50 else max(1.0, 1.15 * highest)
            plots[heading] = bars_plot(bars, "percent", xlim=(0, 1.02 * end))
    return plots


def _bar(row: Mapping[str, Any], heading: str) -> Bar:
    figure = row["figures"][heading]
    dots = [run["figures"].get(heading) for run in row["runs"]]
    dots = [value for value in dots if value is not None]
    return Bar(f"{row['row']}: {mean_text(figure)}", figure["mean"], figure["spread"], dots)


def _lines_of(results: Results) -> dict[str, Plot]:
    """Heading -> a line for each row over the data."""
    data = list(results["data"])
    names = list(dict.fromkeys(row["row"] for row in results["rows"]))
    # Side by side, so that no whisker hides another.
    shifts = [(number - (len(names) - 1) / 2) * 0.06 for number in range(len(names))]
    plots = {}
    for heading in results["columns"]:
        lines = [_line(results, name, heading, shift) for name, shift in zip(names, shifts)]
        plots[heading] = lines_plot(
            lines, "", "percent", markers=True, size=(400, 320), ylim=(0, 103),
            xticks=range(len(data)), xticklabels=[literal(name) for name in data],
        )  # fmt: skip
    return plots


def _line(results: Results, name: str, heading: str, shift: float) -> Line:
    rows = [row for row in _with_figure(results, heading) if row["row"] == name]
    figures = [row["figures"][heading] for row in rows]
    return Line(
        name,
        [results["data"].index(row["data"]) + shift for row in rows],
        [figure["mean"] for figure in figures],
        spread=[figure["spread"] or 0.0 for figure in figures],
    )


def _with_figure(results: Results, heading: str) -> list[Mapping[str, Any]]:
    return [row for row in results["rows"] if row["figures"][heading]["mean"] is not None]
