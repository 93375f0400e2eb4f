"""The report of a study: a table of trainings over several seeds, as plain data."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from .charts import Bar, Line, bar_plot, line_plot, literal, percent_end
from .document import Facts, Figure, Listing, Part, Picture, Section, Table, Text
from .page import write_report

_NONE = "-"


def write_study_report(results: Mapping[str, Any], folder: str | os.PathLike[str]) -> str:
    """Write ``report.html`` for a table of trainings.

    Args:
        results: "title", "question", "columns" (headings of figures in percent), "data" (names of
            data sets), "seeds", and "rows". A row has "row" (its name), "data", "figures"
            (heading -> "mean" and "spread", the standard deviation over seeds, each None where
            there is none), "runs" ("seed", "seconds", "finished", "figures") and perhaps
            "difference" (heading -> "mean" and "spread" of the differences, seed by seed, from the
            row called "baseline"), "overrides" (config keys). "plot" is "lines" for lines over the
            data sets. As tools/study.py writes them to results.json.
        folder: where to write.

    Returns:
        The file's path.

    Raises:
        IONError: the file cannot be written.
    """
    path = os.path.join(os.fspath(folder), "report.html")
    write_report(path, results["title"], study_sections(results), lead=results["question"])
    return path


def study_sections(results: Mapping[str, Any]) -> list[Section]:
    """Put together the report of a study.

    Args:
        results: see :func:`write_study_report`.

    Returns:
        Its sections.
    """
    if results.get("plot") == "lines":
        parts = [_lines(results), *(_over_data(results, name) for name in results["columns"])]
        return [Section("Figures", parts), _runs(results)]
    sections = []
    for data in results["data"]:
        rows = [row for row in results["rows"] if row["data"] == data]
        title = "Figures" if len(results["data"]) == 1 else f"Figures: {data}"
        parts = [_bars(results, rows), _means(results, rows), *_differences(results, rows)]
        sections.append(Section(title, parts))
    return [*sections, _runs(results)]


def _number(value: float | None, form: str = ".1f") -> str:
    return _NONE if value is None else format(value, form)


def _told(figure: Mapping[str, Any], form: str = ".1f") -> str:
    """A mean with its spread."""
    mean = _number(figure["mean"], form)
    return mean if figure["spread"] is None else f"{mean} \u00b1 {figure['spread']:.1f}"


def _means(results: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = results["columns"]
    cells = []
    for row in rows:
        finished = sum(run["finished"] for run in row["runs"])
        figures = (_told(row["figures"][heading]) for heading in columns)
        cells.append([row["row"], *figures, f"{finished} of {len(row['runs'])}"])
    return Table(_spread_caption(results), ["", *columns, "runs"], cells)


def _over_data(results: Mapping[str, Any], heading: str) -> Table:
    """One column's figures, with a column for each data set."""
    told: dict[str, dict[str, str]] = {}
    for row in results["rows"]:
        told.setdefault(row["row"], {})[row["data"]] = _told(row["figures"][heading])
    cells = [
        [name, *(by_data.get(data, _NONE) for data in results["data"])]
        for name, by_data in told.items()
    ]
    caption = f"{heading}. {_spread_caption(results)}"
    return Table(caption, ["", *results["data"]], cells)


def _spread_caption(results: Mapping[str, Any]) -> str:
    seeds = ", ".join(map(str, results["seeds"]))
    return f"Percent: mean and sample standard deviation over the seeds {seeds}."


def _differences(results: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[Part]:
    """Against the baseline, where there is one."""
    compared = [row for row in rows if "difference" in row]
    if not compared:
        return []
    cells = []
    for row in compared:
        told = (_told(row["difference"][heading], "+.1f") for heading in results["columns"])
        cells.append([row["row"], *told])
    caption = (
        f"Difference from {results['baseline']}, seed by seed: mean and sample standard deviation. "
        "A mean that is not several times the deviation says little."
    )
    return [Table(caption, ["", *results["columns"]], cells)]


def _seeds_of(row: Mapping[str, Any], heading: str) -> list[float]:
    values = [run["figures"].get(heading) for run in row["runs"]]
    return [value for value in values if value is not None]


def _bars(results: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Part:
    """A plot for each column, with a bar for each row."""
    pictures = []
    for heading in results["columns"]:
        bars = []
        for row in rows:
            figure = row["figures"][heading]
            if figure["mean"] is not None:
                name = f"{row['row']}: {_told(figure)}"
                dots = _seeds_of(row, heading)
                bars.append(Bar(name, figure["mean"], figure["spread"], dots))
        if bars:
            end = percent_end([bar.length + (bar.spread or 0.0) for bar in bars])
            plot = bar_plot(bars, "percent", xlim=(0, 1.02 * end))
            alt = f"{heading}: {'; '.join(bar.name for bar in bars)}."
            pictures.append(Picture(plot, alt, heading))
    if not pictures:
        return Text(["No run is finished yet."])
    caption = "Bar: mean over the seeds; whisker: standard deviation; dot: one seed."
    return Figure(pictures, caption, width=290)


def _lines(results: Mapping[str, Any]) -> Part:
    """A plot for each column, with a line for each row over the data."""
    names = list(dict.fromkeys(row["row"] for row in results["rows"]))
    data = list(results["data"])
    pictures = []
    for heading in results["columns"]:
        lines = [_line(results, name, heading) for name in names]
        plot = line_plot(
            [line for line in lines if len(line.x)],
            "",
            "percent",
            markers=True,
            size=(400, 320),
            ylim=(0, 103),
            xticks=range(len(data)),
            xticklabels=[literal(name) for name in data],
        )
        ends = [f"{line.name} ends at {line.y[-1]:.1f}" for line in lines if len(line.x)]
        alt = f"{heading} over {', '.join(data)}; {'; '.join(ends) or 'no run is finished'}."
        pictures.append(Picture(plot, alt, heading))
    return Figure(pictures, "Mean over the seeds; whisker: standard deviation.", width=340)


def _line(results: Mapping[str, Any], name: str, heading: str) -> Line:
    found = [
        (results["data"].index(row["data"]), row["figures"][heading])
        for row in results["rows"]
        if row["row"] == name and row["figures"][heading]["mean"] is not None
    ]
    return Line(
        name,
        [place for place, _ in found],
        [figure["mean"] for _, figure in found],
        spread=[figure["spread"] or 0.0 for _, figure in found],
    )


def _runs(results: Mapping[str, Any]) -> Section:
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
