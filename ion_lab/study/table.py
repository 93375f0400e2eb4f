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
    """Pictures to train and test on."""

    name: str
    scenes: Mapping[str, Any] | None = None  # arguments of synthetic scenes
    folder: str = ""  # name under which the user gives a VOC-layout folder; "" for scenes
    train: str = "trainval"  # split to train on
    test: str = "test"  # split to test on
    keys: Mapping[str, Any] = field(default_factory=dict)  # config overrides on this data


@dataclass(frozen=True)
class Start:
    """A training whose weights rows start from.

    Attributes:
        name: of the start.
        data: what it trains on; None for the data of the row that starts from it.
        row: name of the row it trains; "" for the row that starts from it.
        config: path of its config file, which the keys of the cut do not change; None for the
            table's file and the keys of the cut.
        keys: config overrides, which win over the row's: its schedule may be another.
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
    """One model of the comparison."""

    name: str
    keys: Mapping[str, Any]  # config overrides
    start: str = ""  # name of the training whose weights it starts from; "" for a random start
    weights_of: str = ""  # row whose trained models it evaluates by other keys of TEST; "" trains


@dataclass(frozen=True)
class Cut:
    """How much of a table is run."""

    seeds: tuple[int, ...]  # each row is trained once with each
    keys: Mapping[str, Any]  # config overrides, such as a shorter schedule
    rows: tuple[str, ...] | None = None  # names of the rows; None is all


@dataclass(frozen=True)
class Table:
    """A table of a study; see :mod:`ion_lab.study.table_file`."""

    name: str  # stem of its file
    title: str
    question: str
    config: Path  # of every run
    keys: Mapping[str, Any]
    data: tuple[Data, ...]
    starts: Mapping[str, Start]
    rows: tuple[Row, ...]
    columns: Mapping[str, str]  # heading -> place of the figure in ``voc_results.json``
    baseline: str
    plot: str
    cuts: Mapping[str, Cut]

    def row(self, name: str) -> Row:
        """The row of a name."""
        return next(row for row in self.rows if row.name == name)

    def trained(self, row: Row) -> Row:
        """The row whose trainings make a row's models: another where it evaluates that one's."""
        return self.row(row.weights_of) if row.weights_of else row

    def rows_of(self, cut: str) -> list[Row]:
        """The rows of a cut, in the table's order."""
        chosen = self.cuts[cut].rows
        return [row for row in self.rows if chosen is None or row.name in chosen]
