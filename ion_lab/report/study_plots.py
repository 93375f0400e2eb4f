"""The plots of a study's results: bars by row, or lines over the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .charts import Bar, Line, Plot, bars_plot, lines_plot, literal
from .study_tables import Results, mean_text


class StudyPlot(NamedTuple):
    """A plot of one column of figures, and its content in words."""

    plot: Plot
    alt: str


def bars_of(results: Results, data: str) -> dict[str, StudyPlot]:
    """Heading -> a bar for each row that has a figure, with a dot for each seed."""
    rows = [row for row in results["rows"] if row["data"] == data]
    plots = {}
    for heading in results["columns"]:
        bars = [_bar(row, heading) for row in rows if row["figures"][heading]["mean"] is not None]
        if bars:
            highest = max(bar.length + (bar.spread or 0.0) for bar in bars)
            end = 100.0 if highest > 50 else max(1.0, 1.15 * highest)
            plot = bars_plot(bars, "percent", xlim=(0, 1.02 * end))
            plots[heading] = StudyPlot(plot, f"{heading}: {'; '.join(bar.name for bar in bars)}.")
    return plots


def _bar(row: Mapping[str, Any], heading: str) -> Bar:
    figure = row["figures"][heading]
    dots = [run["figures"].get(heading) for run in row["runs"]]
    dots = [value for value in dots if value is not None]
    return Bar(f"{row['row']}: {mean_text(figure)}", figure["mean"], figure["spread"], dots)


def lines_of(results: Results) -> dict[str, StudyPlot]:
    """Heading -> a line for each row over the data."""
    data = list(results["data"])
    names = list(dict.fromkeys(row["row"] for row in results["rows"]))
    plots = {}
    for heading in results["columns"]:
        # Side by side, so that no whisker hides another.
        shifts = [(number - (len(names) - 1) / 2) * 0.06 for number in range(len(names))]
        lines = [_line(results, name, heading, shift) for name, shift in zip(names, shifts)]
        plot = lines_plot(
            lines, "", "percent", markers=True, size=(400, 320), ylim=(0, 103),
            xticks=range(len(data)), xticklabels=[literal(name) for name in data],
        )  # fmt: skip
        ends = [f"{line.name} ends at {line.y[-1]:.1f}" for line in lines if len(line.x)]
        told = "; ".join(ends) or "no run is finished"
        plots[heading] = StudyPlot(plot, f"{heading} over {', '.join(data)}; {told}.")
    return plots


def _line(results: Results, name: str, heading: str, shift: float) -> Line:
    rows: Sequence[Mapping[str, Any]] = [
        row
        for row in results["rows"]
        if row["row"] == name and row["figures"][heading]["mean"] is not None
    ]
    figures = [row["figures"][heading] for row in rows]
    return Line(
        name,
        [results["data"].index(row["data"]) + shift for row in rows],
        [figure["mean"] for figure in figures],
        spread=[figure["spread"] or 0.0 for figure in figures],
    )
