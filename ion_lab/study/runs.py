"""The single trainings of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ion_lab.study.run_settings import as_overrides, run_settings
from ion_lab.study.study_data import Pictures
from ion_lab.study.table import Cut, Data, Row, Table


@dataclass(frozen=True)
class Run:
    """One training, or evaluation of what another trained: a row on some data with a seed."""

    row: str
    data: str
    seed: int
    config: Path
    overrides: tuple[str, ...]  # alternating keys and values, without data and output folder
    pictures: Pictures
    start: Run | None  # the training whose weights it starts from
    parts: tuple[str, ...] | None  # of that training's detector that it takes over; None is all
    settings: Mapping[str, Any]  # what it is known by, see run_settings
    trains: bool = True  # otherwise it evaluates its start

    @property
    def lineage(self) -> list[Run]:
        """What it starts from, the first of all first, and the run itself."""
        return [*(self.start.lineage if self.start else []), self]

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
    """List the trainings of a table, those of the first seed first, without their starts.

    Args:
        table: the table.
        cut: "full" or "quick".
        pictures: data name -> pictures; the table's other data is left out.
        starts: name of a start -> pictures to train it on; not for those that take their row's.
        seeds: instead of those of the cut.

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

    def run(self, row: Row, data: Data, seed: int, pictures: Pictures) -> Run:
        """A run of the table."""
        if row.weights_of:
            trained = self.run(self.table.trained(row), data, seed, pictures)
            return _evaluation(row, trained, self._told(row.name))
        start = self._start(row, data, seed, pictures) if row.start else None
        parts = self.table.starts[row.start].parts if row.start else None
        keys = {**data.keys, **self.cut.keys, **row.keys}
        config = self.table.config
        return self._make(row.name, data.name, seed, config, keys, pictures, start, parts)

    def _start(self, row: Row, data: Data, seed: int, pictures: Pictures) -> Run:
        """What a run of a row starts from; it has a random start itself."""
        start = self.table.starts[row.start]
        trained = self.table.row(start.row) if start.row else row
        source = start.data or data
        name = start.name if start.data else f"{data.name} {start.name}"
        # A config file of its own has its own schedule.
        of_cut = {} if start.config else self.cut.keys
        keys = {**source.keys, **of_cut, **trained.keys, **start.keys}
        pictures = self.starts.get(start.name, pictures)
        config = start.config or self.table.config
        return self._make(trained.name, name, seed, config, keys, pictures)

    def _make(
        self,
        row: str,
        data: str,
        seed: int,
        config: Path,
        keys: Mapping[str, Any],
        pictures: Pictures,
        start: Run | None = None,
        parts: tuple[str, ...] | None = None,
    ) -> Run:
        overrides = tuple(as_overrides({**self.table.keys, **keys, "SEED": seed}))
        before, told = start.settings if start else None, self._told(row)
        known_by = run_settings(config, overrides, pictures, before, parts, told)
        return Run(row, data, seed, config, overrides, pictures, start, parts, known_by)

    def _told(self, row: str) -> str:
        """The keys of a row, in messages."""
        return f"The row {row!r} of the table {self.table.name}, with its data and cut,"


def _evaluation(row: Row, trained: Run, told: str) -> Run:
    """The evaluation of a trained run by the keys of another row."""
    overrides = (*trained.overrides, *as_overrides(row.keys))
    settings = run_settings(
        trained.config, overrides, trained.pictures, trained.settings, source=told
    )
    return replace(
        trained,
        row=row.name,
        overrides=overrides,
        start=trained,
        parts=None,
        settings=settings,
        trains=False,
    )
