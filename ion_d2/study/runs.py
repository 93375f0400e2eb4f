"""The single trainings of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ion_d2.study.pictures import Pictures
from ion_d2.study.settings import as_overrides, run_settings
from ion_d2.study.table import Cut, Data, Row, Table


@dataclass(frozen=True)
class Run:
    """One training: a row on some data with a seed.

    Attributes:
        row: name of the row.
        data: name of the data.
        seed: of the training.
        config: config file.
        overrides: of the config; alternating keys and values, without data and output folder.
        pictures: what it trains and tests on.
        start: the training whose weights it starts from, or None.
        settings: what it is known by; JSON can hold it.
    """

    row: str
    data: str
    seed: int
    config: Path
    overrides: tuple[str, ...]
    pictures: Pictures
    start: Run | None
    settings: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Row, data and seed in words."""
        return f"{self.row}, {self.data}, seed {self.seed}"


def plan_runs(
    table: Table,
    cut: str,
    pictures: Mapping[str, Pictures],
    starts: Mapping[str, Pictures],
    seeds: Sequence[int] | None = None,
) -> list[Run]:
    """List the trainings of a table, so that those of the first seed come first.

    Args:
        table: the table.
        cut: "full" or "quick".
        pictures: data name -> pictures; the table's other data is left out.
        starts: name of a start -> pictures to train it on.
        seeds: instead of those of the cut.

    Returns:
        The runs, without those that they start from.

    Raises:
        IONError: an override is wrong.
    """
    planner = _Planner(table, table.cuts[cut], starts)
    return [
        planner.run(row, data, seed, pictures[data.name])
        for seed in (table.cuts[cut].seeds if seeds is None else seeds)
        for data in table.data
        if data.name in pictures
        for row in table.rows_of(cut)
    ]


@dataclass(frozen=True)
class _Planner:
    table: Table
    cut: Cut
    starts: Mapping[str, Pictures]

    def run(self, row: Row, data: Data, seed: int, pictures: Pictures, started: bool = True) -> Run:
        """A run; ``started`` False leaves out the row's start."""
        start = None
        if row.start and started:
            source = self.table.starts[row.start]
            start = self.run(row, source, seed, self.starts[row.start], started=False)
        keys = {**self.table.keys, **data.keys, **self.cut.keys, **row.keys, "SEED": seed}
        overrides = tuple(as_overrides(keys))
        settings = run_settings(
            self.table.config, overrides, pictures.identity, start.settings if start else None
        )
        config = self.table.config
        return Run(row.name, data.name, seed, config, overrides, pictures, start, settings)
