"""The cells of a study's tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

NONE = "–"

Results = Mapping[str, Any]
_Cell = Callable[[Mapping[str, Any], str], str]


class Grid(NamedTuple):
    """Finished cells."""

    headers: list[str]
    rows: list[list[str]]


def mean_text(figure: Mapping[str, Any], form: str = ".1f") -> str:
    """A mean with its spread; a dash where there is none."""
    if figure["mean"] is None:
        return NONE
    text = format(figure["mean"], form)
    return text if figure["spread"] is None else f"{text} ± {figure['spread']:.1f}"


def mean_grids(results: Results) -> list[Grid]:
    """Means and spreads, with the number of runs where some are missing."""
    asked = len(results["seeds"])

    def cell(row: Mapping[str, Any], heading: str) -> str:
        text = mean_text(row["figures"][heading])
        finished = sum(run["finished"] for run in row["runs"])
        return text if text == NONE or finished == asked else f"{text} ({finished} of {asked})"

    return _grids(results, cell)


def difference_grids(results: Results) -> list[Grid]:
    """Differences from the baseline, if any; bold: the mean's confidence interval excludes 0."""

    def cell(row: Mapping[str, Any], heading: str) -> str:
        difference = row.get("difference", {}).get(heading, {"mean": None})
        text, width = mean_text(difference, "+.1f"), difference.get("half_width")
        sure = width is not None and abs(difference["mean"]) > width
        return f"**{text}**" if sure else text

    return _grids(results, cell) if any("difference" in row for row in results["rows"]) else []


def _grids(results: Results, cell: _Cell) -> list[Grid]:
    """Rows by columns; or, of one column or of lines over several data, rows by data."""
    columns, several = list(results["columns"]), len(results["data"]) > 1
    if several and (len(columns) == 1 or results.get("plot") == "lines"):
        return [_by_data(results, heading, cell) for heading in columns]
    data = [[row["data"]] if several else [] for row in results["rows"]]
    rows = [
        [*before, row["row"], *(cell(row, heading) for heading in columns)]
        for before, row in zip(data, results["rows"])
    ]
    return [Grid([*(["data"] if several else []), "", *columns], rows)]


def _by_data(results: Results, heading: str, cell: _Cell) -> Grid:
    names = dict.fromkeys(row["row"] for row in results["rows"])
    cells = {(row["row"], row["data"]): cell(row, heading) for row in results["rows"]}
    rows = [[name, *(cells.get((name, data), NONE) for data in results["data"])] for name in names]
    return Grid([heading, *results["data"]], rows)
