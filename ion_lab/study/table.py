"""What a table of a study is made of: which trainings to compare, and by what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CUTS = ("full", "quick")
"""Names of the cuts of a table."""

PLOTS = ("bars", "lines")
"""Kinds of plots; lines need several data."""


@dataclass(frozen=True)
class Data:
    """Pictures to train and test on.

    Attributes:
        name: how the table calls them.
        scenes: arguments of synthetic scenes, or None.
        folder: name under which the user gives the path of a VOC-layout folder; "" for scenes.
        train: split to train on.
        test: split to test on.
        keys: config overrides on this data.
    """

    name: str
    scenes: Mapping[str, Any] | None = None
    folder: str = ""
    train: str = "trainval"
    test: str = "test"
    keys: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Start:
    """A training whose weights rows start from.

    Attributes:
        name: of the start.
        data: what it trains on; None for the data of the row that starts from it.
        row: name of the row it trains; "" for the row that starts from it.
        config: path of its config file, which the keys of the cut do not change; None for the
            table's file and the keys of the cut.
        keys: config overrides: its schedule may be another.
        parts: of the detector, by their names in it, that rows take over; the others start at
            random. None takes all.
    """

    name: str
    data: Data | None = None
    row: str = ""
    config: Path | None = None
    keys: Mapping[str, Any] = field(default_factory=dict)
    parts: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Row:
    """One model of the comparison.

    Attributes:
        name: of the row.
        keys: config overrides.
        start: name of the training whose weights it starts from; "" for a random start.
    """

    name: str
    keys: Mapping[str, Any]
    start: str = ""


@dataclass(frozen=True)
class Cut:
    """How much of a table is run.

    Attributes:
        seeds: each row is trained once with each.
        keys: config overrides, such as a shorter schedule.
        rows: names of the rows; None is all.
    """

    seeds: tuple[int, ...]
    keys: Mapping[str, Any]
    rows: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Table:
    """A table of a study; see :mod:`ion_lab.study.table_file`.

    Attributes:
        name: stem of its file.
        config: path of the config file of every run.
        columns: heading -> place of the figure in ``voc_results.json``.
    """

    name: str
    title: str
    question: str
    config: Path
    keys: Mapping[str, Any]
    data: tuple[Data, ...]
    starts: Mapping[str, Start]
    rows: tuple[Row, ...]
    columns: Mapping[str, str]
    baseline: str
    plot: str
    cuts: Mapping[str, Cut]

    def row(self, name: str) -> Row:
        """The row of a name."""
        return next(row for row in self.rows if row.name == name)

    def rows_of(self, cut: str) -> list[Row]:
        """The rows of a cut, in the table's order."""
        chosen = self.cuts[cut].rows
        return [row for row in self.rows if chosen is None or row.name in chosen]
