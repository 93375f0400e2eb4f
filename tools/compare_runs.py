#!/usr/bin/env python
"""Compare runs: their results, their curves, and the settings in which they differ.

    python tools/compare_runs.py output/ion output/plain
    python tools/compare_runs.py output/* --html runs.html

It reads what train_net.py, or another training with Detectron2, left in each folder, and writes
Markdown. Nothing is evaluated. tools/study.py trains and compares models over several seeds.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from run_results import MEANS, Run, read_runs
from tabulate import tabulate

from ion_d2.engine.setup import run_cli
from ion_d2.errors import IONError
from ion_d2.evaluation.results_file import write_json
from ion_d2.evaluation.tables import format_percent
from ion_d2.files import write_result
from ion_lab.report import Figure, Line, Picture, Section, Table, write_report
from ion_lab.report.charts import Plot, lines_plot, save_png

SIZE = (480, 330)
ADVICE = "choose another file"


class Comparison(NamedTuple):
    """A table of finished text."""

    title: str
    headers: list[str]
    rows: list[list[str]]


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs (their OUTPUT_DIR)")
    parser.add_argument("--json", type=Path, help="a file for the figures and settings")
    parser.add_argument("--html", type=Path, help="a page with the tables and curves")
    parser.add_argument("--png", type=Path, help="a picture of the curves")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Compare runs.

    Args:
        argv: the arguments; None takes them from the command line.
    """
    args = build_parser().parse_args(argv)
    runs = read_runs(args.runs)
    tables, plots = compare(runs), curves(runs)
    if args.json:
        write_json(str(args.json), plain(runs), indent=1)
    if args.html:
        write_page(args.html, tables, plots)
    if args.png:
        if not plots:
            raise IONError("No run has curves: there is no metrics.json in their folders.")
        draw = functools.partial(save_png, title="Runs", plots=plots)
        write_result(str(args.png), draw, ADVICE)
    print("\n\n".join(map(markdown, tables)))


def compare(runs: Sequence[Run]) -> list[Comparison]:
    """Tables of means and classes for each test set, and of the settings that differ.

    Args:
        runs: what :func:`run_results.read_runs` gives.

    Returns:
        The tables, figures in percent.
    """
    tables = []
    for place in range(len(runs[0].results)):
        tables += [_means(runs, place), *_classes(runs, place)]
    return [*tables, _differences(runs)]


def _means(runs: Sequence[Run], place: int) -> Comparison:
    results = [run.results[place] for run in runs]
    datasets, metrics = ({getattr(r, name) for r in results} for name in ("dataset", "metric"))
    columns = {
        "run": [run.name for run in runs],
        **({"data": [r.dataset for r in results]} if len(datasets) > 1 else {}),
        **({"VOC_METRIC": [r.metric or "-" for r in results]} if len(metrics) > 1 else {}),
        "iterations": ["-" if run.iterations is None else str(run.iterations) for run in runs],
        **{name: [format_percent(r.mean[name]) for r in results] for name in MEANS},
    }
    title = ", on different data" if len(datasets) > 1 else f" on {results[0].dataset}"
    metric = results[0].metric if len(metrics) == 1 else ""
    told = f" (TEST.VOC_METRIC {metric})" if metric else ""
    rows = [list(cells) for cells in zip(*columns.values())]
    return Comparison(f"Results{title}{told}", list(columns), rows)


def _classes(runs: Sequence[Run], place: int) -> list[Comparison]:
    """A figure of each class that all runs have: AP50, or else AP."""
    of_runs = [run.results[place].classes for run in runs]
    figure = next((f for f in ("AP50", "AP") if all(f in classes for classes in of_runs)), None)
    if figure is None:
        return []
    rows = [
        [name, *(format_percent(classes[figure].get(name)) for classes in of_runs)]
        for name in dict.fromkeys(name for classes in of_runs for name in classes[figure])
    ]
    on = f" on {runs[0].results[place].dataset}" if len(runs[0].results) > 1 else ""
    return [Comparison(f"{figure} of each class{on}", ["class", *(run.name for run in runs)], rows)]


def _differences(runs: Sequence[Run]) -> Comparison:
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    values = {key: [run.settings.get(key, "-") for run in runs] for key in sorted(keys)}
    rows = [[key, *them] for key, them in values.items() if len(set(them)) > 1]
    return Comparison("Settings that differ", ["key", *(run.name for run in runs)], rows)


def curves(runs: Sequence[Run]) -> dict[str, Plot]:
    """Draw total loss and AP50 over the iterations, a line for each run that has them.

    Args:
        runs: what :func:`run_results.read_runs` gives.

    Returns:
        Heading -> plot.
    """
    shown: dict[str, tuple[list[str], dict[str, Any]]] = {
        "Total loss": (["total_loss"] * len(runs), {"yscale": "log"}),
        "AP50": (list(map(_ap50_name, runs)), {"markers": True}),
    }
    plots = {}
    for heading, (names, options) in shown.items():
        # A run without a figure keeps its place, and so its color.
        lines = [Line(run.name, *run.series.get(name, ([], []))) for run, name in zip(runs, names)]
        if any(len(line.x) for line in lines):
            plots[heading] = lines_plot(lines, "iteration", heading, size=SIZE, **options)
    return plots


def _ap50_name(run: Run) -> str:
    """The AP50 in metrics.json that is by the metric of the run's results, or else its own."""
    first = run.results[0]
    prefix = f"{first.dataset}/" if len(run.results) > 1 else ""
    by_metric = f"{prefix}bbox_{first.metric}/AP50"
    return by_metric if by_metric in run.series else f"{prefix}bbox/AP50"


def markdown(table: Comparison) -> str:
    """A table under its title as Markdown.

    Args:
        table: whose cells may hold anything.

    Returns:
        The text, or a sentence where the table has no rows.
    """
    if not table.rows:
        return f"## {table.title}\n\nNone."
    headers, *rows = (
        [cell.replace("|", r"\|") for cell in row] for row in (table.headers, *table.rows)
    )
    align = ["left", *["right"] * (len(headers) - 1)]
    text = tabulate(rows, headers, "github", disable_numparse=True, colalign=align)
    return f"## {table.title}\n\n{text}"


def write_page(path: Path, tables: Sequence[Comparison], plots: dict[str, Plot]) -> None:
    """Write an HTML page with tables and curves.

    Args:
        path: the file.
        tables: of :func:`compare`.
        plots: of :func:`curves`.

    Raises:
        IONError: the file cannot be written.
    """
    parts = [Table(f"{table.title}.", table.headers, table.rows) for table in tables if table.rows]
    sections = [Section("Tables", parts)]
    if plots:
        pictures = [Picture(p.svg(), f"{name} of each run.", name) for name, p in plots.items()]
        caption = (
            "Each line is a run. A point of the loss is the median since the point before; each "
            "dot of AP50 is an evaluation."
        )
        sections.append(Section("Curves", [Figure(pictures, caption, width=400)]))
    write_report(path, "Runs compared", sections)


def plain(runs: Sequence[Run]) -> dict[str, Any]:
    """Figures and differing settings as plain data.

    Args:
        runs: what :func:`run_results.read_runs` gives.

    Returns:
        "runs": a list with "name", "iterations" and "results", each with "dataset", "metric"
        (``TEST.VOC_METRIC``, "" of another evaluator), "mean" and "classes";
        "settings": key -> values in the order of the runs.
    """
    told = [
        {"name": run.name, "iterations": run.iterations, "results": [vars(r) for r in run.results]}
        for run in runs
    ]
    return {"runs": told, "settings": {key: them for key, *them in _differences(runs).rows}}


if __name__ == "__main__":
    run_cli(main)
