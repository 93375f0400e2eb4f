"""tools/compare_runs.py on folders as trainings leave them."""

import json
from functools import partial

import pytest
import yaml
from cli_helpers import load_tool, output_of, run_tool, says
from matplotlib.figure import Figure
from page_checks import check_page
from PIL import Image


@pytest.fixture
def compare(capfd):
    """Runs tools/compare_runs.py: arguments -> (exit status, stdout, stderr)."""
    return partial(run_tool, load_tool("compare_runs"), capfd)


def write_config(folder, test="voc:data:test", rate=0.01, name="config.yaml"):
    folder.mkdir(exist_ok=True)
    test = [test] if isinstance(test, str) else test
    solver = {"BASE_LR": rate, "MAX_ITER": 40}
    keys = {"DATASETS": {"TEST": test}, "TEST": {"VOC_METRIC": "area"}, "SOLVER": solver}
    (folder / name).write_text(yaml.safe_dump({**keys, "OUTPUT_DIR": str(folder), "VERSION": 2}))


def set_metric(folder, metric):
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["TEST"]["VOC_METRIC"] = metric
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def write_voc(folder, **classes):
    """A voc_results.json with the AP50 of each class; AP is half of it."""

    def figures(ap50):
        return {"AP": ap50 and ap50 / 2, "AP50": ap50, "AP75": None}

    def both(ap50):  # by the other metric, all is 1
        return {"area": figures(ap50), "11point": figures(1.0)}

    there = [value for value in classes.values() if value is not None]
    content = {
        "metric": "area",
        "mean": both(sum(there) / len(there)),
        "classes": {name: both(value) for name, value in classes.items()},
    }
    folder.mkdir(exist_ok=True)
    (folder / "voc_results.json").write_text(json.dumps(content))


def write_metrics(folder, *entries):
    (folder / "metrics.json").write_text("".join(json.dumps(entry) + "\n" for entry in entries))


ON_VOC = "Results on voc:data:test (TEST.VOC_METRIC area)"
LOSSES = [{"iteration": 19, "total_loss": 2.0}, {"iteration": 39, "total_loss": 1.0}]


@pytest.fixture
def runs(tmp_path):
    """A run with a training's figures, and one of which there are those of its evaluation alone."""
    first, second = tmp_path / "a|b", tmp_path / "second run"
    write_config(first)
    write_voc(first, cat=80.0, dog=60.0)
    write_metrics(first, *LOSSES, {"iteration": 40, "bbox/AP": 35.0, "bbox/AP50": 70.0})
    write_config(second, rate=0.02)
    write_voc(second, cat=50.0, dog=None)
    return first, second


def tables(text):
    """Cells of each Markdown table by its heading."""
    found = {}
    for part in text.split("## ")[1:]:
        title, *lines = part.strip().splitlines()
        rows = [line.replace(r"\|", "PIPE").strip("|").split("|") for line in lines if line]
        found[title] = [[cell.strip() for cell in row] for row in rows if "---" not in row[0]]
    return found


def test_figures_classes_and_settings(compare, runs, tmp_path):
    files = tmp_path / "new" / "c.json", tmp_path / "c.html", tmp_path / "c.png"
    arguments = [
        x for kind, file in zip(("json", "html", "png"), files) for x in (f"--{kind}", file)
    ]
    told = tables(output_of(compare(*runs, *arguments)))
    assert told == {
        ON_VOC: [
            ["run", "iterations", "AP", "AP50", "AP75"],
            ["aPIPEb", "40", "35.0", "70.0", "-"],
            ["second run", "-", "25.0", "50.0", "-"],
        ],
        "AP50 of each class": [
            ["class", "aPIPEb", "second run"],
            ["cat", "80.0", "50.0"],
            ["dog", "60.0", "-"],
        ],
        "Settings that differ": [
            ["key", "aPIPEb", "second run"],
            ["SOLVER.BASE_LR", "0.01", "0.02"],
        ],
    }
    plain = json.loads(files[0].read_text())
    assert plain["settings"] == {"SOLVER.BASE_LR": ["0.01", "0.02"]}
    assert plain["runs"][1]["results"][0]["classes"]["AP50"] == {"cat": 50.0, "dog": None}
    page = check_page(files[1].read_text())
    assert len(page.plots()) == 2 and "SOLVER.BASE_LR" in page.text()
    with Image.open(files[2]) as picture:
        assert picture.format == "PNG" and picture.width > picture.height


def test_several_datasets_of_another_program(compare, tmp_path):
    """Detectron2's own trainings leave metrics.json, with COCO's figures of the classes."""
    for name, ap in (("one", 10.0), ("two", 20.0)):
        write_config(tmp_path / name, test=["a", f"b_{name}"])
        figures = {f"a/bbox/{x}": ap for x in ("AP", "AP50", "AP-cat")}
        figures |= {f"b_{name}/bbox/{x}": ap + 1 for x in ("AP", "AP75")}
        write_metrics(tmp_path / name, *LOSSES, {"iteration": 40, **figures})
    told = tables(output_of(compare(tmp_path / "one", tmp_path / "two")))
    assert told["Results on a"][1:] == [
        ["one", "40", "10.0", "10.0", "-"],
        ["two", "40", "20.0", "20.0", "-"],
    ]
    assert told["AP of each class on a"] == [["class", "one", "two"], ["cat", "10.0", "20.0"]]
    assert told["Results, on different data"] == [
        ["run", "data", "iterations", "AP", "AP50", "AP75"],
        ["one", "b_one", "40", "11.0", "-", "11.0"],
        ["two", "b_two", "40", "21.0", "-", "21.0"],
    ]


def test_the_metric_is_that_of_the_first(compare, runs):
    voc = json.loads((runs[1] / "voc_results.json").read_text())
    (runs[1] / "voc_results.json").write_text(json.dumps({**voc, "metric": "11point"}))
    told = tables(output_of(compare(*runs)))
    assert told[ON_VOC][2] == ["second run", "-", "25.0", "50.0", "-"]
    for path, *others in (runs, runs[::-1]):
        set_metric(path, "11point")
        told = tables(output_of(compare(path, *others)))
        assert {row[3] for row in told[ON_VOC.replace("area", "11point")][1:]} == {"1.0"}
        set_metric(path, "area")


def test_a_metric_that_a_file_lacks_is_told(compare, runs):
    """As of a run from before the metric was added."""
    set_metric(runs[0], "101point")
    voc = (runs[0] / "voc_results.json").read_text().replace("11point", "101point")
    (runs[0] / "voc_results.json").write_text(voc)
    words = f"{runs[1]}/voc_results.json has no average precision '101point'", "; evaluate again"
    assert says(compare(*runs), *words)
    assert compare(*reversed(runs))[0] == 0


def test_curves_and_figures_of_metrics_json_are_by_the_metric_of_the_table(compare, tmp_path):
    """Both trainings are the same, but for the metric of their headline."""
    figures = {"bbox_area": 20.0, "bbox_11point": 40.0}
    for metric in ("area", "11point"):
        write_config(tmp_path / metric)
        set_metric(tmp_path / metric, metric)
        own = figures[f"bbox_{metric}"]
        evaluated = {"bbox/AP": own, "bbox/AP50": own, "bbox/AP50-cat": own}
        evaluated |= {f"{task}/{name}": v for task, v in figures.items() for name in ("AP", "AP50")}
        write_metrics(tmp_path / metric, *LOSSES, {"iteration": 40, **evaluated})
    page = tmp_path / "page.html"
    for order in (("area", "11point"), ("11point", "area")):
        shown = f"{figures[f'bbox_{order[0]}']:.1f}"
        told = tables(output_of(compare(*(tmp_path / name for name in order), "--html", page)))
        title = f"Results on voc:data:test (TEST.VOC_METRIC {order[0]})"
        assert [row[2:4] for row in told[title][1:]] == [[shown, shown]] * 2
        assert "AP50 of each class" not in told  # it is by the run's own metric alone
    tool, axes = load_tool("compare_runs"), Figure().add_subplot()
    runs = tool.read_runs([tmp_path / "area", tmp_path / "11point"])
    tool.curves(runs)["AP50"].draw(axes)
    assert [list(line.get_ydata()) for line in axes.lines] == [[20.0], [20.0]]


def test_runs_of_other_evaluators_are_told_apart(compare, runs):
    first, second = runs
    (second / "voc_results.json").unlink()
    write_metrics(second, *LOSSES, {"iteration": 40, "bbox/AP": 30.0, "bbox/AP50": 60.0})
    assert tables(output_of(compare(*runs)))["Results on voc:data:test"] == [
        ["run", "VOC_METRIC", "iterations", "AP", "AP50", "AP75"],
        ["aPIPEb", "area", "40", "35.0", "70.0", "-"],
        ["second run", "-", "40", "30.0", "60.0", "-"],
    ]


def test_settings_are_those_of_the_evaluation_shown(compare, runs):
    first, second = runs
    write_config(second)  # as that of the first
    write_voc(second, cat=50.0, dog=60.0)
    write_config(second, rate=9.0, name="config_eval.yaml")
    config = yaml.safe_load((second / "config_eval.yaml").read_text())
    config["TEST"]["FLIP_AVERAGING"] = True
    config["INPUT"] = {"MIN_SIZE_TEST": 800, "MIN_SIZE_TRAIN": [7]}
    config["MODEL"] = {"WEIGHTS": str(second / "model_best.pth"), "RPN": {"NMS_THRESH": 0.1}}
    (second / "config_eval.yaml").write_text(yaml.safe_dump(config))
    _, *rows = tables(output_of(compare(first, second)))["Settings that differ"]
    assert {row[0]: row[1:] for row in rows} == {
        "INPUT.MIN_SIZE_TEST": ["-", "800"],
        "MODEL.WEIGHTS of the evaluation": ["-", "model_best.pth"],
        "TEST.FLIP_AVERAGING": ["-", "True"],
    }


def test_figures_stay_with_their_dataset(compare, runs, tmp_path):
    """An evaluation on COCO's data leaves a config, but no figures; those are of the training."""
    for name, ap in (("one", 10.0), ("two", 20.0)):
        write_config(tmp_path / name, test="coco:val")
        write_config(tmp_path / name, test="coco:test", name="config_eval.yaml")
        write_metrics(tmp_path / name, *LOSSES, {"iteration": 40, "bbox/AP": ap})
    told = tables(output_of(compare(tmp_path / "one", tmp_path / "two")))
    expected = ["one", "40", "10.0", "-", "-"], ["two", "40", "20.0", "-", "-"]
    assert told["Results on coco:val"][1:] == list(expected)
    write_config(tmp_path / "two", test=["coco:a", "coco:b"], name="config_eval.yaml")
    # Of an earlier evaluation.
    write_voc(tmp_path / "one", cat=99.0)
    stale = json.loads((tmp_path / "one/voc_results.json").read_text())
    (tmp_path / "one/voc_results.json").write_text(json.dumps({**stale, "dataset": "voc:x:test"}))
    told = tables(output_of(compare(tmp_path / "one", tmp_path / "two")))
    assert told["Results on coco:val"][1:] == list(expected)
    # Evaluated on one of several.
    for name in ("one", "two"):
        write_config(tmp_path / name, test=["a", "b"])
        write_config(tmp_path / name, test="b", name="config_eval.yaml")
        figures = {"a/bbox/AP": 1.0, "b/bbox/AP": 2.0}
        write_metrics(tmp_path / name, *LOSSES, {"iteration": 40, **figures})
    told = tables(output_of(compare(tmp_path / "one", tmp_path / "two")))
    assert told["Results on b"][1] == ["one", "40", "2.0", "-", "-"]


def test_runs_of_one_name_are_told_by_their_paths(compare, runs, tmp_path):
    paths = [tmp_path / x / "run" for x in ("x", "y")]
    for path in paths:
        path.parent.mkdir()
        write_config(path)
        write_voc(path, cat=1.0)
    told = tables(output_of(compare(*paths)))
    assert [row[0] for row in told[ON_VOC][1:]] == list(map(str, paths))
    assert told["Settings that differ"] == [["None."]]


def test_bad_input_is_one_sentence(compare, runs, tmp_path):
    first, second = runs
    assert says(compare(first), "two different runs or more", "tools/report.py")
    assert says(compare(first, second, first), "two different runs or more")
    assert says(compare(first, tmp_path / "gone"), "gone has no config.yaml")
    other = tmp_path / "other"
    write_config(other)
    assert says(compare(first, other), f"{other} has no results on voc:data:test", "--eval-only")
    write_voc(other, cat=1.0, bird=2.0)
    assert says(compare(first, other), "different classes", "bird, dog")
    assert says(compare(second, other, "--png", tmp_path / "x.png"), "different classes")
    write_voc(other, cat=1.0, dog=2.0)
    assert says(compare(second, other, "--png", tmp_path / "x.png"), "no metrics.json")
    for text, words in (("{", "cannot be read as JSON"), ("[]", "is not of this format")):
        (other / "voc_results.json").write_text(text)
        assert says(compare(first, other), "voc_results.json", words)
    write_config(other, test=["a", "b"])
    for name in "ab":
        write_voc(other / name, cat=1.0)
    assert says(compare(first, other), "different numbers of datasets", "other on 2")
    write_config(other, test=[])
    assert says(compare(first, other), "DATASETS.TEST names no dataset")
    (other / "config.yaml").write_text("- 1\n")
    assert says(compare(first, other), "config.yaml is no config")
    assert not list(tmp_path.glob("x.*"))
