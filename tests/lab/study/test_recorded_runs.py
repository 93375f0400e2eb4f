"""The runs that docs/study holds are those of the tables as they are now."""

from __future__ import annotations

import collections
import functools
import json
import re

import detectron2
import pytest
from study_helpers import ROOT

from ion_lab.study import read_table, spread_of
from ion_lab.study.figures import figures_in
from ion_lab.study.run_settings import same_settings
from ion_lab.study.runs import Run, plan_runs
from ion_lab.study.study_data import Pictures

pytestmark = pytest.mark.slow

TABLES = {path.stem: read_table(path) for path in sorted(ROOT.glob("configs/study/*.yaml"))}
RECORDS = sorted(ROOT.glob("docs/study/*.json"))


def merged(common, own):
    """What all runs share, with what is a run's own."""
    if not (isinstance(common, dict) and isinstance(own, dict)):
        return own
    return {**common, **{key: merged(common.get(key), value) for key, value in own.items()}}


@functools.cache
def recorded(path) -> dict[str, dict]:
    """Name -> recorded run of a table, with all its settings."""
    content = json.loads(path.read_text(encoding="utf-8"))
    shared = {"settings": content["common"]}
    return {run["name"]: merged(shared, run) for run in content["runs"]}


def planned(path) -> dict[str, Run]:
    """Name -> run of a table, on the pictures of the recorded ones."""
    table, settings = TABLES[path.stem], {n: r["settings"] for n, r in recorded(path).items()}
    pictures = {name.split(", ")[-2]: pictures_of(each) for name, each in settings.items()}
    before = [pictures_of(each["start"]) for each in settings.values() if each["start"]]
    starts = {start.name: before[0] for start in table.starts.values() if start.data}
    return {run.name: run for run in plan_runs(table, "full", pictures, starts)}


def pictures_of(settings) -> Pictures:
    return Pictures("train", "test", settings["pictures"])


@functools.cache
def told_figures() -> set[str]:
    """Mean and spread of every row and column of the tables, as the recorded runs have them."""
    found = collections.defaultdict(list)
    for path in RECORDS:
        for name, run in recorded(path).items():
            figures = figures_in(run["results"], TABLES[path.stem].columns, name)
            for heading, figure in figures.items():
                if figure is not None:  # a class without objects
                    found[path, name.rpartition(", ")[0], heading].append(figure)
    spreads = (spread_of(values) for values in found.values())
    return {f"{s.mean:.1f} ± {s.spread:.1f}" for s in spreads if s.spread is not None}


METRICS = ("AP", "AP50", "AP75")
# Of "real", rows are recorded as their trainings are done.
UNFINISHED, UNRECORDED = {"real"}, {"real_segmentation"}


def test_every_table_is_recorded():
    assert {path.stem for path in RECORDS} == TABLES.keys() - UNRECORDED


@pytest.mark.parametrize("page", ["docs/STUDY.md", "docs/BENCHMARKS.md", "README.md"])
def test_figures_of_the_docs_are_those_of_the_runs(page):
    told = set(re.findall(r"\d+\.\d ± \d+\.\d", (ROOT / page).read_text(encoding="utf-8")))
    assert told
    assert sorted(told - told_figures()) == []


@pytest.mark.parametrize("page", ["README.md", "docs/PHOTOGRAPHS.md"])
def test_figures_of_photographs_are_those_of_the_runs(page):
    lines = (ROOT / page).read_text(encoding="utf-8").replace("*", "").splitlines()
    found = collections.defaultdict(lambda: collections.defaultdict(list))
    for name, run in recorded(ROOT / "docs/study/real.json").items():
        model, data, _ = name.rsplit(", ", 2)
        # One row for both sets of data, or a table each.
        row, metrics = (model, ("AP", "AP50")) if page == "README.md" else ((model, data), METRICS)
        for metric in metrics:
            found[row][data, metric].append(run["results"]["coco"][metric])
    # The README has what was trained on both sets of data.
    told = [each for each in found.values() if page != "README.md" or len(each) == 4]
    assert len(told) == (8 if page == "README.md" else 19)
    for figures in told:
        cells = " | ".join(map(told_figure, map(spread_of, figures.values())))
        assert any(f" | {cells} |" in line for line in lines), cells


def told_figure(of_seeds) -> str:
    spread = "" if of_seeds.spread is None else f" ± {of_seeds.spread:.1f}"
    return f"{of_seeds.mean:.1f}{spread}"


@pytest.mark.skipif(
    not detectron2.__version__.startswith("0.5"),
    reason="recorded with Detectron2 0.5; other versions have another SOLVER.WEIGHT_DECAY_BIAS",
)
@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_the_recorded_runs_are_those_of_the_table(path):
    runs = planned(path)
    assert recorded(path)
    assert recorded(path).keys() <= runs.keys()
    assert runs.keys() == recorded(path).keys() or path.stem in UNFINISHED
    for name, run in recorded(path).items():
        assert same_settings(run["settings"], runs[name].settings), name
