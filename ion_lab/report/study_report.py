"""The report of a study: a table of trainings over several seeds."""

from __future__ import annotations

import os
from collections.abc import Mapping

from .document import Facts, Figure, Listing, Part, Picture, Section, Table, Text
from .page import write_report
from .study_plots import StudyPlot, bars_of, lines_of
from .study_tables import NONE, Grid, Results, difference_grids, mean_grids


def write_study_report(results: Results, folder: str | os.PathLike[str]) -> str:
    """Write ``report.html`` for a table of trainings.

    Args:
        results: as tools/study.py writes them to results.json; see
            :func:`ion_lab.study.collect_results`.
        folder: where to write.

    Returns:
        The file's path.

    Raises:
        IONError: the file cannot be written.
    """
    path = os.path.join(os.fspath(folder), "report.html")
    write_report(path, results["title"], study_sections(results), lead=results["question"])
    return path


def study_sections(results: Results) -> list[Section]:
    """The sections of a study's report: plots, tables of means and differences, single runs."""
    seeds = ", ".join(map(str, results["seeds"]))
    means = f"Percent: mean and sample standard deviation over the seeds {seeds}."
    differences = (
        f"Difference from {results['baseline']}, seed by seed: mean and sample standard deviation. "
        "A star: the mean's 95 % confidence interval (Student's t) leaves out 0."
    )
    tables = [_table(means, grid) for grid in mean_grids(results)]
    tables += [_table(differences, grid) for grid in difference_grids(results, "{} *")]
    return [Section("Figures", [*_plots(results), *tables]), _runs(results)]


def _table(caption: str, grid: Grid) -> Table:
    return Table(caption, grid.headers, grid.rows, grid.text_columns)


def _plots(results: Results) -> list[Part]:
    """Bars for each data set, or lines over all of them."""
    if results.get("plot") == "lines":
        caption = "Mean over the seeds; whisker: standard deviation."
        return [_figure(lines_of(results), caption, width=340)]
    parts: list[Part] = []
    for data in results["data"]:
        plots = bars_of(results, data)
        caption = "Bar: mean over the seeds; whisker: standard deviation; dot: one seed."
        told = caption if len(results["data"]) == 1 else f"{data}. {caption}"
        nothing = f"No run on {data} is finished yet."
        parts.append(_figure(plots, told, width=290) if plots else Text([nothing]))
    return parts


def _figure(plots: Mapping[str, StudyPlot], caption: str, width: int) -> Figure:
    pictures = [Picture(plot.svg(), alt, heading) for heading, (plot, alt) in plots.items()]
    return Figure(pictures, caption, width)


def _number(value: float | None, form: str = ".1f") -> str:
    return NONE if value is None else format(value, form)


def _runs(results: Results) -> Section:
    """Every single run, and what its config says beyond the table's."""
    columns = results["columns"]
    cells = [
        [row["row"], row["data"], str(run["seed"])]
        + [_number(run["figures"].get(heading)) for heading in columns]
        + [_number(run["seconds"] if run["finished"] else None, ".0f")]
        for row in results["rows"]
        for run in row["runs"]
    ]
    headers = ["", "data", "seed", *columns, "seconds"]
    parts: list[Part] = [Table("Every run; a dash: not finished.", headers, cells, text_columns=2)]
    versions = [(name, str(version)) for name, version in results.get("environment", {}).items()]
    if versions:
        parts.append(Facts(versions))
    keys = [
        f"{row['row']}\n" + "".join(f"    {k}: {v}\n" for k, v in row["overrides"].items())
        for row in results["rows"]
        if row.get("overrides") and row["data"] == results["data"][0]
    ]
    if keys:
        parts.append(Listing("Config keys of each row", "\n".join(keys)))
    return Section("Runs", parts)
