"""Reports of studies: every figure of the results is in the page, at its place."""

from __future__ import annotations

import pytest
from page_checks import check_page

from ion_lab.report import write_study_report


def row(name, data, means, spread=1.0, difference=None):
    figures = {heading: {"mean": m, "spread": spread, "count": 2} for heading, m in means.items()}
    runs = [
        {"seed": seed, "finished": True, "seconds": 60.4, "folder": "x",
         "figures": {heading: m + seed for heading, m in means.items()}}
        for seed in (0, 1)
    ]  # fmt: skip
    content = {"row": name, "data": data, "overrides": {"A.B": [1]}, "runs": runs,
               "figures": figures}  # fmt: skip
    if difference is not None:
        entry = {"mean": difference, "spread": 0.7, "half_width": 6.3}
        content["difference"] = {heading: entry for heading in means}
    return content


def results(rows, data=("scenes",), plot="bars"):
    return {"table": "t", "title": "A <title>", "question": "Which & why?", "cut": "full",
            "baseline": "<plain>", "plot": plot, "columns": ["outside", "inside"],
            "environment": {"torch": "2.11"}, "data": list(data), "seeds": [0, 1], "rows": rows,
            "pooled_spread": {}}  # fmt: skip


def read(path):
    with open(path, encoding="utf-8") as file:
        return check_page(file.read())


def unfinished(name, data="scenes"):
    content = row(name, data, {})
    nothing = {"mean": None, "spread": None, "count": 0}
    content["figures"] = {"outside": nothing, "inside": nothing}
    content["runs"] = [{"seed": 0, "finished": False, "seconds": 0.0, "folder": "x", "figures": {}}]
    return content


def test_bars_and_tables(tmp_path):
    rows = [
        row("<plain>", "scenes", {"outside": 51.25, "inside": 20.0}),
        row("context $", "scenes", {"outside": 98.0, "inside": 96.0}, difference=46.75),
        unfinished("later"),
    ]
    page = read(write_study_report(results(rows), tmp_path))
    text = page.text()
    for word in ("A <title>", "Which & why?", "51.2 \u00b1 1.0", "98.0 \u00b1 1.0",
                 "+46.8 \u00b1 0.7 *", "Difference from <plain>", "2.11"):  # fmt: skip
        assert word in text
    assert len(page.plots()) == 2
    assert "context $: 98.0 \u00b1 1.0" in page.plots()[0]["alt"]
    assert "later" not in page.plots()[0]["alt"]
    cells = [data for tag, data in page.texts if tag == "td"]
    # Every run with its seed, figures and time.
    runs = [cells[i : i + 5] for i in range(len(cells))]
    assert ["scenes", "1", "52.2", "21.0", "60"] in runs
    assert ["scenes", "0", "–", "–", "–"] in runs


def test_lines_over_the_data(tmp_path):
    rows = [
        row(name, data, {"outside": mean, "inside": mean})
        for name, start in (("near", 90.0), ("far", 60.0))
        for data, mean in (("100 px", start), ("200 px", start - 20))
    ]
    page = read(write_study_report(results(rows, ("100 px", "200 px"), "lines"), tmp_path))
    assert "near ends at 70.0; far ends at 40.0" in page.plots()[0]["alt"]
    headings = [data for tag, data in page.texts if tag == "h2"]
    assert headings == ["Figures", "Runs"]
    cells = [data for tag, data in page.texts if tag == "td"]
    assert cells[:4] == ["90.0 \u00b1 1.0", "70.0 \u00b1 1.0", "60.0 \u00b1 1.0", "40.0 \u00b1 1.0"]


@pytest.mark.parametrize("plot", ["bars", "lines"])
def test_nothing_finished(tmp_path, plot):
    page = read(write_study_report(results([unfinished("a")], plot=plot), tmp_path))
    assert "finished" in page.text() + str(page.plots())


def test_names_are_no_formulas(tmp_path):
    rows = [row("$x_{$", data, {"outside": 1.0, "inside": 2.0}) for data in ("$_{", "b")]
    for plot in ("bars", "lines"):
        page = read(write_study_report(results(rows, ("$_{", "b"), plot), tmp_path))
        assert "$x_{$" in page.text()
