"""The runs that docs/study holds are those of the tables as they are now."""

from __future__ import annotations

import contextlib
import functools
import json
import re

import detectron2
import pytest
from study_helpers import ROOT

from ion_d2.errors import IONError
from ion_lab.study import read_table, spread_of
from ion_lab.study.figures import read_figures
from ion_lab.study.run_settings import same_settings
from ion_lab.study.runs import plan_runs
from ion_lab.study.store import RESULTS
from ion_lab.study.study_data import Pictures

RUNS = sorted(ROOT.glob("docs/study/runs/*/run.json"))
TABLES = {path.stem: read_table(path) for path in sorted(ROOT.glob("configs/study/*.yaml"))}


@functools.cache
def planned(name: str, seed: int, pictures: str, before: str) -> list:
    """A table's runs with a seed, they and what they start from on pictures of these identities."""
    table = TABLES[name]
    same, first = (Pictures("train", "test", json.loads(text)) for text in (pictures, before))
    given = {data.name: same for data in table.data}
    starts = {start.name: first for start in table.starts.values() if start.data is not None}
    return plan_runs(table, "full", given, starts, [seed])


def runs_named(name: str, settings: dict) -> list:
    """The tables' runs of a name, with the pictures of these settings."""
    seed, start = int(name.rsplit(" ", 1)[1]), settings["start"] or settings
    identities = json.dumps(settings["pictures"]), json.dumps(start["pictures"])
    tables = [
        table.name
        for table in TABLES.values()
        if name in [f"{row.name}, {d.name}, seed {seed}" for row in table.rows for d in table.data]
    ]
    runs = [run for table in tables for run in planned(table, seed, *identities)]
    return [run for run in runs if run.name == name]


def test_there_are_some():
    assert len(RUNS) >= 213


@functools.cache
def told_figures() -> set[str]:
    """Mean and spread of every row and column of the tables, as the recorded runs have them."""
    found: dict[tuple[str, str], list[float]] = {}
    for path in RUNS:
        note = json.loads(path.read_text())
        # Two tables may each have a row of a name.
        name = (note["name"].rsplit(",", 1)[0], path.parent.name.rpartition("_")[2] == "2")
        for place in {place for table in TABLES.values() for place in table.columns.values()}:
            with contextlib.suppress(IONError):  # a column of another table
                figure = read_figures(path.parent / RESULTS, {"it": place})["it"]
                found.setdefault((name, place), []).append(figure)
    spreads = (spread_of(values) for values in found.values())
    return {f"{s.mean:.1f} ± {s.spread:.1f}" for s in spreads if s.spread is not None}


@pytest.mark.parametrize("page", ["docs/STUDY.md", "docs/BENCHMARKS.md", "README.md"])
def test_figures_of_the_docs_are_those_of_the_runs(page):
    told = set(re.findall(r"\d+\.\d ± \d+\.\d", (ROOT / page).read_text(encoding="utf-8")))
    assert told
    assert sorted(told - told_figures()) == []


@pytest.mark.skipif(
    not detectron2.__version__.startswith("0.5"),
    reason="recorded with Detectron2 0.5; other versions have another SOLVER.WEIGHT_DECAY_BIAS",
)
@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.parent.name)
def test_a_recorded_run_is_one_of_a_table(path):
    note = json.loads(path.read_text())
    assert note["finished"] and (path.parent / RESULTS).is_file()
    runs = runs_named(note["name"], note["settings"])
    assert any(same_settings(note["settings"], run.settings) for run in runs)
