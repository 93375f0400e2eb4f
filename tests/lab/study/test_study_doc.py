"""docs/STUDY.md agrees with the tables, and its example is one."""

from __future__ import annotations

import re

from study_helpers import ROOT

from ion_d2.engine.setup import load_config
from ion_lab.study import read_table
from ion_lab.study.run_settings import as_overrides

TEXT = (ROOT / "docs" / "STUDY.md").read_text(encoding="utf-8")


def count(table, cut):
    rows = [row for row in table.rows_of(cut) if not row.weights_of]
    return len(rows) * len(table.data) * len(table.cuts[cut].seeds)


def test_every_table_is_told_with_its_number_of_trainings():
    told = dict(re.findall(r"^\| `([\w-]+)` \|.*\| (\d+.*?/ \d+) \|$", TEXT, re.MULTILINE))
    tables = {path.stem: read_table(path) for path in ROOT.glob("configs/study/*.yaml")}
    assert told.keys() == tables.keys()
    for name, numbers in told.items():
        first, last = re.findall(r"\d+", numbers)[:: len(re.findall(r"\d+", numbers)) - 1]
        table = tables[name]
        assert (int(first), int(last)) == (count(table, "full"), count(table, "quick")), name


def test_the_example_is_a_table(tmp_path):
    (example,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    folder = tmp_path / "configs" / "study"
    folder.mkdir(parents=True)
    (folder / "pooling.yaml").write_text(example)
    table = read_table(folder / "pooling.yaml")
    assert table.config == tmp_path / "configs" / "ion_study.yaml"
    for row in table.rows:
        load_config(str(ROOT / "configs" / "ion_study.yaml"), as_overrides(row.keys))
