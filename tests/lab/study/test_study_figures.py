"""Statistics, figures, Markdown and plots of a study against values computed by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
import scipy.stats
from box_helpers import output_of
from detectron2.data import DatasetCatalog
from matplotlib.figure import Figure
from PIL import Image

from ion_d2.data.catalog import class_names
from ion_d2.errors import IONError
from ion_d2.evaluation import IONVOCEvaluator
from ion_lab.report.charts import SERIES
from ion_lab.study import table_plots
from ion_lab.study.figures import PLACES, is_place, read_figures
from ion_lab.study.markdown import to_markdown
from ion_lab.study.statistics import Spread, half_width, pooled_spread, spread_of
from ion_lab.study.table_plots import draw_plots


def test_mean_and_sample_standard_deviation():
    # Deviations -2, 0, 2: squares sum to 8, divided by n - 1 = 2 gives 4.
    assert spread_of([1.0, 3.0, 5.0]) == Spread(3.0, 2.0, 3)
    assert spread_of([1.0, None, 4.0]) == Spread(2.5, pytest.approx(4.5**0.5), 2)
    assert spread_of([7.0]) == Spread(7.0, None, 1)
    assert spread_of([None]) == Spread(None, None, 0)


def test_pooled_spread_weighs_by_degrees_of_freedom():
    # (2 * 1 + 1 * 16) / 3 = 6; the group of one value has no say.
    groups = [Spread(0.0, 1.0, 3), Spread(9.0, 4.0, 2), Spread(5.0, None, 1)]
    assert pooled_spread(groups) == pytest.approx(6**0.5)
    assert pooled_spread(groups[2:]) is None and pooled_spread([]) is None
    rng = np.random.default_rng(0)
    values = [rng.normal(size=n) for n in (3, 5, 4)]
    residuals = np.concatenate([v - v.mean() for v in values])
    expected = np.sqrt((residuals**2).sum() / (len(residuals) - 3))
    assert pooled_spread([spread_of(v) for v in values]) == pytest.approx(expected)


def test_half_width_is_that_of_students_t():
    values = [0.6, 3.1, 3.4]
    low, high = scipy.stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert half_width(spread_of(values)) == pytest.approx((high - low) / 2)
    # By the tables of t, two degrees of freedom: 4.303 * 1 / sqrt(3).
    assert half_width(Spread(9.0, 1.0, 3)) == pytest.approx(4.303 / 3**0.5, abs=1e-3)
    assert half_width(Spread(9.0, None, 1)) is None


def test_figures_are_means_over_what_a_place_matches(tmp_path):
    path = tmp_path / "voc_results.json"
    classes = {"tile_a": 90.0, "tile_b": 80.0, "triangle": 10.0, "cross": None}
    report = {
        "classes": {name: {"area": {"AP50": ap}} for name, ap in classes.items()},
        "coco": {"AP": 33.0, "APs": None},
    }
    path.write_text(json.dumps(report))
    columns = {"inside": "classes/tile_*/area/AP50", "ordinary": "classes/[ct]r*/area/AP50",
               "AP": "coco/AP", "small": "coco/APs",
               "outside": "classes/lamp_*/area/AP50"}  # fmt: skip
    expected = {"inside": 85.0, "ordinary": 10.0, "AP": 33.0, "small": None, "outside": None}
    assert read_figures(path, columns) == expected
    for place in ("classes/tile_*/area/AP", "coco", "coco/AP/more", "mean/area/AP"):
        with pytest.raises(IONError, match="no figure there"):
            read_figures(path, {"x": place})
    for odd in (10**400, True, float("inf")):
        path.write_text(json.dumps({"coco": {"AP": odd}}))
        with pytest.raises(IONError, match="no figure there"):
            read_figures(path, {"AP": "coco/AP"})
    path.write_text('{"classes": []}')
    with pytest.raises(IONError, match="no figure there"):
        read_figures(path, columns)
    path.write_text("{")
    with pytest.raises(IONError, match="voc_results.json cannot be read"):
        read_figures(path, columns)


def shape(content):
    """The keys of nested dicts."""
    return {k: shape(v) for k, v in content.items()} if isinstance(content, dict) else None


def test_places_are_those_of_an_evaluation(scenes, tmp_path):
    names = [f"voc:{scenes}:test"]
    classes = class_names(names)
    evaluator = IONVOCEvaluator(*names, output_dir=str(tmp_path))
    for record in DatasetCatalog.get(*names):
        evaluator.process([record], [output_of([])])
    evaluator.evaluate()
    content = json.loads((tmp_path / "voc_results.json").read_text())
    (of_class,) = PLACES["classes"].values()
    told = {name: content.get(name) for name in PLACES}
    assert shape(told) == shape({**PLACES, "classes": dict.fromkeys(classes, of_class)})


@pytest.mark.parametrize(
    "place",
    ["classes/sheep/area/AP50", "classes/t*_[ab]/11point/by_iou/0.55", "mean/*/AP", "coco/AR100"],
)
def test_places_that_may_have_figures(place):
    assert is_place(place)


@pytest.mark.parametrize(
    "place",
    ["classes", "classes/sheep", "classes/sheep/AP50", "classes/sheep/area/AP5", "mean/AP", "coco"],
)
def test_places_that_have_no_figures(place):
    assert not is_place(place)


def figure(*values):
    return spread_of(values)._asdict()


def row(name, data, *values, **others):
    runs = [
        {"seed": i, "finished": v is not None, "seconds": 100.0, "figures": {"AP": v}}
        for i, v in enumerate(values)
    ]
    return {"row": name, "data": data, "runs": runs, "figures": {"AP": figure(*values)}, **others}


def report(rows, **changes):
    data = list(dict.fromkeys(each["data"] for each in rows))
    return {"table": "small", "title": "A table", "question": "Which?", "cut": "full",
            "baseline": "a", "plot": "bars", "columns": ["AP"], "data": data, "seeds": [0, 1],
            "rows": rows, "pooled_spread": {"AP": 2.0},
            "environment": {"torch": "2.0", "detectron2": "0.5"}, **changes}  # fmt: skip


def difference(*values):
    told = spread_of(values)
    return {"difference": {"AP": {**told._asdict(), "half_width": half_width(told)}}}


def test_markdown_word_by_word():
    rows = [
        row("a", "x", 1.0, 5.0),
        row("b", "x", 11.0, 12.0, **difference(8.4, 8.6)),
        row("c", "x", 3.0, None, **difference(2.0, None)),
        row("d | e", "x", None, None, **difference(None)),
        row("f", "x", 2.0, 9.0, **difference(1.0, 4.0)),
    ]
    assert to_markdown(report(rows), "python tools/study.py small") == (
        "## A table\n\n"
        "    python tools/study.py small\n\n"
        "Which?\n\n"
        "Percent; mean ± sample standard deviation over the seeds. Seeds: 0, 1.\n\n"
        "|        | AP           |\n"
        "|--------|--------------|\n"
        "| a      | 3.0 ± 2.8    |\n"
        "| b      | 11.5 ± 0.7   |\n"
        "| c      | 3.0 (1 of 2) |\n"
        "| d \\| e | –            |\n"
        "| f      | 5.5 ± 4.9    |\n\n"
        "Difference from *a*, seed by seed: mean ± sample standard deviation; bold where the "
        "mean's 95 % confidence interval (Student's t) leaves out 0:\n\n"
        "|        | AP             |\n"
        "|--------|----------------|\n"
        "| a      | –              |\n"
        "| b      | **+8.5 ± 0.1** |\n"
        "| c      | +2.0           |\n"
        "| d \\| e | –              |\n"
        "| f      | +2.5 ± 2.1     |\n\n"
        "Spread over seeds, pooled over all rows: AP 2.0.\n\n"
        "7 runs, one thread each, 100 s in the mean, evaluation included; PyTorch 2.0, Detectron2 "
        "0.5.\n"
    )


def test_one_figure_on_several_data_becomes_rows_by_data():
    rows = [row(name, data, 1.0, 1.0) for data in ("near", "far") for name in ("a", "b")]
    rows[3]["figures"]["AP"] = figure(50.0, 60.0)
    text = to_markdown(report(rows, cut="quick"), "x")
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert table[0].split() == "| AP | near | far |".split()
    assert table[3].split() == "| b | 1.0 ± 0.0 | 55.0 ± 7.1 |".split()
    assert "The quick cut" in text


@pytest.mark.parametrize("plot", ["bars", "lines"])
def test_plots_are_drawn_also_of_what_is_missing(tmp_path, plot):
    rows = [row(n, d, 50.0, 60.0) for d in ("near", "far") for n in ("a", "b")]
    rows[1]["figures"]["AP"], rows[1]["runs"] = figure(None), []
    paths = draw_plots(report(rows, plot=plot), tmp_path)
    names = ["small.png"] if plot == "lines" else ["small_near.png", "small_far.png"]
    assert [path.name for path in paths] == names
    first = tuple(bytes.fromhex(SERIES[0][1:]))
    for path in paths:
        picture = np.asarray(Image.open(path).convert("RGB"))
        assert picture.shape[1] >= 800
        assert first in {tuple(c) for c in picture.reshape(-1, 3)[::7]}


@pytest.mark.parametrize("plot", ["bars", "lines"])
def test_plots_show_means_of_what_is_finished(tmp_path, monkeypatch, plot):
    rows = [row("$a", "near", 97.0, 99.0), row("$a", "far", 60.0, 80.0), row("later", "far")]
    shown = []
    monkeypatch.setattr(table_plots, "save_png", lambda path, title, plots: shown.append(plots))
    draw_plots(report(rows, plot=plot), tmp_path)
    drawn = []
    for plots in shown:
        drawn.append(Figure().add_subplot())
        plots["AP"].draw(drawn[-1])
    if plot == "bars":
        texts = [[text.get_text() for text in axes.texts] for axes in drawn]
        assert texts == [[r"\$a: 98.0 ± 1.4"], [r"\$a: 70.0 ± 14.1"]]
    else:
        ends = [list(line.get_ydata()) for line in drawn[0].lines if line.get_marker() == "o"]
        assert ends == [[98.0, 70.0], []]


@pytest.mark.parametrize(("plot", "names"), [("bars", []), ("lines", ["small.png"])])
def test_nothing_is_finished(tmp_path, plot, names):
    rows = [row("a", data) for data in ("near", "far")]
    assert [path.name for path in draw_plots(report(rows, plot=plot), tmp_path)] == names


@pytest.mark.parametrize("plot", ["bars", "lines"])
def test_names_are_no_formulas_and_no_folders(tmp_path, plot):
    rows = [row("$x_{$", data, 1.0, 2.0) for data in ("VOC/07", "VOC 07", "$^$")]
    table = report(rows, plot=plot, title="5 $ a {", columns=["AP"])
    names = (
        ["small.png"]
        if plot == "lines"
        else ["small_VOC_07.png", "small_VOC_07_2.png", "small__.png"]
    )
    assert [path.name for path in draw_plots(table, tmp_path)] == names
