"""Pictures of a table: bars by row, or lines over the data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ion_lab.report.charts import save_png
from ion_lab.report.study_plots import bars_of, lines_of
from ion_lab.study.store import file_name


def draw_plots(results: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw a table: a PNG file of bars for each data that has figures, or one of lines."""
    table, title = results["table"], results["title"]
    if results["plot"] == "lines":
        pictures = {table: (title, lines_of(results))}
    elif len(results["data"]) == 1:
        pictures = {table: (title, bars_of(results, results["data"][0]))}
    else:
        pictures = {
            f"{table}_{file_name(data)}": (f"{title}: {data}", bars_of(results, data))
            for data in results["data"]
        }
    paths = []
    for name, (heading, plots) in pictures.items():
        if plots:
            paths.append(folder / f"{name}.png")
            save_png(paths[-1], heading, {column: plot for column, (plot, _) in plots.items()})
    return paths
