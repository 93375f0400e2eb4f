"""A table's results as the Markdown that docs/STUDY.md holds."""

from __future__ import annotations

import statistics

from tabulate import tabulate

from ion_lab.study.cells import Grid, Results, difference_grids, mean_grids


def to_markdown(results: Results, command: str) -> str:
    """Heading, command, question, means and spreads, and the differences from a baseline.

    Args:
        results: as :func:`ion_lab.study.results.collect_results` gives them.
        command: with which the user got them.
    """
    what = "Percent; mean ± sample standard deviation over the seeds."
    if results["cut"] != "full":
        what = f"The {results['cut']} cut: shorter trainings or fewer seeds. {what}"
    seeds = ", ".join(map(str, results["seeds"]))
    lines = [
        f"## {results['title']}",
        f"    {command}",
        results["question"],
        f"{what} Seeds: {seeds}.",
        *map(_pipes, mean_grids(results)),
    ]
    if differences := difference_grids(results):
        lines += [
            f"Difference from *{results['baseline']}*, seed by seed: mean ± sample standard "
            "deviation; bold where the mean's 95 % confidence interval (Student's t) leaves out 0:",
            *map(_pipes, differences),
        ]
    pooled = [f"{k} {v:.1f}" for k, v in results["pooled_spread"].items() if v is not None]
    if pooled:
        lines.append(f"Spread over seeds, pooled over all rows: {', '.join(pooled)}.")
    return "\n\n".join([*lines, _circumstances(results)]) + "\n"


def _circumstances(results: Results) -> str:
    """How many runs there are, how long they took and with what."""
    seconds = [run["seconds"] for row in results["rows"] for run in row["runs"] if run["finished"]]
    versions = results["environment"]
    text = f"{len(seconds)} runs, one thread each"
    if seconds:
        text += f", {statistics.fmean(seconds):.0f} s in the mean, evaluation included"
    return f"{text}; PyTorch {versions['torch']}, Detectron2 {versions['detectron2']}."


def _pipes(grid: Grid) -> str:
    """A table; a name's "|" must not begin another column."""
    headings, *rows = (
        [cell.replace("|", r"\|") for cell in row] for row in (grid.headers, *grid.rows)
    )
    return tabulate(rows, headers=headings, tablefmt="github", disable_numparse=True)
