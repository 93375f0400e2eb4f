"""The content of ``results.json``: what a table's runs measured, with mean and spread."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import detectron2
import torch

from ion_lab.study.figures import read_figures
from ion_lab.study.runs import Run
from ion_lab.study.statistics import Spread, half_width, pooled_spread, spread_of
from ion_lab.study.store import RESULTS, Store
from ion_lab.study.table import Table


def collect_results(
    table: Table, cut: str, runs: Sequence[Run], store: Store, folder: Path
) -> dict[str, Any]:
    """Gather what the finished runs of a cut measured.

    Args:
        table: the table.
        cut: which cut of it.
        runs: the runs of that cut.
        store: their folders.
        folder: where the results are written; the runs' folders are named relative to it.

    Returns:
        Plain data for results.json:

        - "table", "title", "question", "cut", "baseline", "plot"; "columns" (headings), "data"
          (names), "seeds", "environment" (versions);
        - "rows", each with "row", "data", "overrides" (its own), "runs", "figures" (heading ->
          "mean", "spread", "count") and, where there is a baseline on the same data, "difference"
          from it, seed by seed: heading -> the same three, "half_width" of the mean's 95 %
          confidence interval and "pooled_spread", the spread that both rows share;
        - of each run "seed", "finished", "folder", "seconds", "figures" (heading -> percent or
          None);
        - "pooled_spread": heading -> the spread over seeds that all rows share.

    Raises:
        IONError: a file cannot be read.
    """
    rows = [_row(table, members, store, folder) for members in _by_row_and_data(runs)]
    baselines = {row["data"]: row for row in rows if row["row"] == table.baseline}
    for row in rows:
        baseline = baselines.get(row["data"])
        if baseline is not None and baseline != row:
            row["difference"] = {h: _difference(row, baseline, h) for h in table.columns}
    return {
        "table": table.name,
        "title": table.title,
        "question": table.question,
        "cut": cut,
        "baseline": table.baseline,
        "plot": table.plot,
        "columns": list(table.columns),
        "environment": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "detectron2": detectron2.__version__,
        },
        "data": list(dict.fromkeys(run.data for run in runs)),
        "seeds": list(dict.fromkeys(run.seed for run in runs)),
        "rows": rows,
        "pooled_spread": {
            heading: pooled_spread([_spread(row, heading) for row in rows])
            for heading in table.columns
        },
    }


def _by_row_and_data(runs: Sequence[Run]) -> list[list[Run]]:
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.data, run.row), []).append(run)
    return list(groups.values())


def _row(table: Table, runs: Sequence[Run], store: Store, folder: Path) -> dict[str, Any]:
    """What the seeds of one row on one data gave."""
    name = runs[0].row
    row = next(row for row in table.rows if row.name == name)
    told = [_run(table.columns, run, store, folder) for run in runs]
    return {
        "row": name,
        "data": runs[0].data,
        "overrides": {**row.keys, **({"start": row.start} if row.start else {})},
        "runs": told,
        "figures": {
            heading: spread_of(run["figures"].get(heading) for run in told)._asdict()
            for heading in table.columns
        },
    }


def _run(columns: Mapping[str, str], run: Run, store: Store, folder: Path) -> dict[str, Any]:
    place = store.folder(run)
    finished = place.finished
    return {
        "seed": run.seed,
        "finished": finished,
        "folder": os.path.relpath(place.path, folder.absolute()),
        "seconds": place.state()["seconds"],
        "figures": read_figures(place.path / RESULTS, columns) if finished else {},
    }


def _spread(row: Mapping[str, Any], heading: str) -> Spread:
    return Spread(**row["figures"][heading])


def _difference(
    row: Mapping[str, Any], baseline: Mapping[str, Any], heading: str
) -> dict[str, float | None]:
    """Of two rows, seed by seed: the same seed starts from the same weights, and so on."""
    before = {run["seed"]: run["figures"].get(heading) for run in baseline["runs"]}
    differences = spread_of(
        _minus(run["figures"].get(heading), before.get(run["seed"])) for run in row["runs"]
    )
    return {
        **differences._asdict(),
        "half_width": half_width(differences),
        "pooled_spread": pooled_spread([_spread(row, heading), _spread(baseline, heading)]),
    }


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b
