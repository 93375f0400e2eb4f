"""tools/report.py from the command line to the page."""

from __future__ import annotations

from functools import partial

import pytest
from cli_helpers import load_tool, own_lines, run_tool, says, voc_arguments
from page_checks import check_page

pytestmark = pytest.mark.slow


@pytest.fixture
def report(capfd):
    """Runs tools/report.py: arguments -> (exit status, stdout, stderr)."""
    return partial(run_tool, load_tool("report"), capfd)


def test_a_finished_run_is_reported(report, train_net, scenes, tmp_path):
    run = tmp_path / "2016"  # not to be taken for a number
    assert train_net(*voc_arguments(scenes, run))[0] == 0
    assert not (run / "report.html").exists()  # nobody asked for it
    status, out, err = report(run, "--cell", "0", "1")
    assert (status, own_lines(err)) == (0, []), err
    assert out.startswith(f"Wrote {run}/report.html (")
    assert "Run 2016" in check_page((run / "report.html").read_text()).text()
    # Evaluated on other pictures since then.
    other = f"('voc:{scenes}:trainval',)"
    best = (run / "model_final.pth").rename(run / "model_best.pth")
    opts = ("MODEL.WEIGHTS", best, "DATASETS.TEST", other, "TEST.VOC_METRIC", "area")
    assert train_net(*voc_arguments(scenes, run, *opts, flags=["--eval-only"]))[0] == 0
    assert report(run)[0] == 0
    page = (run / "report.html").read_text()
    text = check_page(page).text()
    assert "Trained on" in text and f"on voc:{scenes}:trainval" in text
    assert f"WEIGHTS: {best}" in page and "VOC_METRIC: area" in page


def test_the_weights_are_those_of_the_results(tmp_path):
    """Not an older model_final.pth, where a training went on after it."""
    find = load_tool("report").find_weights
    for name in ("model_final.pth", "model_0000014.pth"):
        (tmp_path / name).touch()
    (tmp_path / "last_checkpoint").write_text("model_0000014.pth")
    assert find(tmp_path, None) == tmp_path / "model_0000014.pth"
    (tmp_path / "model_0000014.pth").unlink()
    assert find(tmp_path, None) == tmp_path / "model_final.pth"
    # Of an evaluation, also where the folder has been moved since.
    for weights, found in (("gone/model_final.pth", tmp_path / "model_final.pth"), ("x", "x")):
        assert find(tmp_path, {"MODEL": {"WEIGHTS": weights}}) == found


def test_bad_input_is_one_sentence(report, tmp_path):
    assert says(report(tmp_path), "config.yaml", "the folder of a run")
    (tmp_path / "config.yaml").write_text("{}")
    assert says(report(tmp_path), "holds no model_final.pth", "--eval-only MODEL.WEIGHTS")
    assert says(report(tmp_path, "--cell", "2", "0"), "--cell is [2.0, 0.0]")
    assert len(list(tmp_path.iterdir())) == 1
    (tmp_path / "config_eval.yaml").write_text("")
    assert says(report(tmp_path), "config_eval.yaml is no config of Detectron2")
