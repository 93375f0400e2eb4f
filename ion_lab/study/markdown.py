"""A table's results as the Markdown that docs/BENCHMARKS.md holds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tabulate import tabulate

_NONE = "–"
_Cell = Callable[[Mapping[str, Any], str], str]


def to_markdown(results: Mapping[str, Any], command: str) -> str:
    """Tell results.

    Args:
        results: as :func:`ion_lab.study.results.collect_results` gives them.
        command: with which the user got them.

    Returns:
        Heading, command, question, the table of means and spreads, and, where there is a baseline,
        the table of differences from it.
    """
    seeds = ", ".join(map(str, results["seeds"]))
    lines = [
        f"## {results['title']}",
        f"    {command}",
        results["question"],
        f"{_what(results)} Seeds: {seeds}.",
        _means(results),
    ]
    if any("difference" in row for row in results["rows"]):
        lines += [
            f"Difference from *{results['baseline']}*, seed by seed: mean ± sample standard "
            "deviation; bold where the mean's 95 % confidence interval (Student's t) leaves out 0:",
            _differences(results),
        ]
    pooled = [f"{k} {v:.1f}" for k, v in results["pooled_spread"].items() if v is not None]
    if pooled:
        lines.append(f"Spread over seeds, pooled over all rows: {', '.join(pooled)}.")
    return "\n\n".join([*lines, _circumstances(results)]) + "\n"


def _what(results: Mapping[str, Any]) -> str:
    text = "Percent; mean ± sample standard deviation over the seeds."
    if results["cut"] != "full":
        text = f"The {results['cut']} cut: shorter trainings or fewer seeds. {text}"
    return text


def _circumstances(results: Mapping[str, Any]) -> str:
    """How many runs there are, how long they took and with what."""
    seconds = [run["seconds"] for row in results["rows"] for run in row["runs"] if run["finished"]]
    versions = results["environment"]
    text = f"{len(seconds)} runs, one thread each"
    if seconds:
        text += f", {statistics.fmean(seconds):.0f} s in the mean, evaluation included"
    return f"{text}; PyTorch {versions['torch']}, Detectron2 {versions['detectron2']}."


def _means(results: Mapping[str, Any]) -> str:
    asked = len(results["seeds"])
    return _table(results, lambda row, heading: _mean(row["figures"][heading], row["runs"], asked))


def _mean(figure: Mapping[str, Any], runs: Sequence[Mapping[str, Any]], asked: int) -> str:
    if figure["mean"] is None:
        return _NONE
    text = f"{figure['mean']:.1f}"
    if figure["spread"] is not None:
        text += f" ± {figure['spread']:.1f}"
    finished = sum(run["finished"] for run in runs)
    return text if finished == asked else f"{text} ({finished} of {asked})"


def _differences(results: Mapping[str, Any]) -> str:
    return _table(results, lambda row, heading: _difference(row.get("difference", {}).get(heading)))


def _difference(difference: Mapping[str, Any] | None) -> str:
    if difference is None or difference["mean"] is None:
        return _NONE
    text = f"{difference['mean']:+.1f}"
    if difference["spread"] is None:
        return text
    text = f"{text} ± {difference['spread']:.1f}"
    return f"**{text}**" if abs(difference["mean"]) > difference["half_width"] else text


def _table(results: Mapping[str, Any], cell: _Cell) -> str:
    """Rows by columns; or, of one column on several data, rows by data."""
    columns, data = results["columns"], results["data"]
    if len(columns) == 1 and len(data) > 1:
        return _by_data(results, cell)
    several = len(data) > 1
    rows = [
        [*([row["data"]] if several else []), row["row"], *(cell(row, c) for c in columns)]
        for row in results["rows"]
    ]
    return _pipes([*(["data"] if several else []), "", *columns], rows)


def _by_data(results: Mapping[str, Any], cell: _Cell) -> str:
    heading, data = results["columns"][0], results["data"]
    names = list(dict.fromkeys(row["row"] for row in results["rows"]))
    cells = {(row["row"], row["data"]): cell(row, heading) for row in results["rows"]}
    rows = [[name, *(cells.get((name, each), _NONE) for each in data)] for name in names]
    return _pipes([heading, *data], rows)


def _pipes(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; a name's "|" must not begin another column."""
    headings, *rows = ([cell.replace("|", r"\|") for cell in row] for row in (headings, *rows))
    return tabulate(rows, headers=headings, tablefmt="github", disable_numparse=True)
