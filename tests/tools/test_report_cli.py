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
    best.rename(run / "model_final.pth")
    # The same weights elsewhere, evaluated here.
    place = tmp_path / "there"
    opts = ("MODEL.WEIGHTS", run / "model_final.pth", "TEST.VOC_METRIC", "area")
    config = ("--config-file", run / "config.yaml")
    status, out, err = report(place, "--evaluate", *config, "--output", tmp_path / "x.html", *opts)
    assert status == 0, err
    assert (place / "voc_results.json").is_file() and not (place / "report.html").exists()
    assert "AP area" in check_page((tmp_path / "x.html").read_text()).text()


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
    assert says(report(tmp_path), "config.yaml", "--config-file")
    config = ("--config-file", "configs/ion_tiny.yaml")
    assert says(report(tmp_path, *config), "holds no model_final.pth", "MODEL.WEIGHTS")
    assert says(report(tmp_path, *config, "MODEL.WEIGHTS", "other.pth"), "add --evaluate")
    assert says(report(tmp_path, *config, "--cell", "2", "0"), "--cell is [2.0, 0.0]")
    assert not list(tmp_path.iterdir())
