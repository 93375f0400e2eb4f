"""Training curves: what metrics.json says, also after interruptions."""

from __future__ import annotations

import json
import logging

import numpy as np
from page_checks import check_page

from ion_lab.report import render_report
from ion_lab.report.training_curves import read_metrics, training_section


def write(path, entries, tail=""):
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries) + tail)
    return str(path)


def test_the_last_word_on_an_iteration_counts(tmp_path):
    entries = [
        {"iteration": 19, "total_loss": 3.0, "lr": 0.1},
        {"iteration": 39, "total_loss": 2.0, "lr": 0.1},
        {"iteration": 30, "bbox/AP": float("nan"), "note": "text"},  # after what came after it
        {"iteration": 59, "total_loss": 1.8, "gone": 1.0},
        {"iteration": 60, "bbox/AP": 7.0},
        {"iteration": 39, "total_loss": 2.5},  # resumed, or begun anew
    ]
    series = read_metrics(write(tmp_path / "metrics.json", entries))
    assert set(series) == {"total_loss", "lr", "bbox/AP"}
    np.testing.assert_array_equal(series["total_loss"], [[19, 39], [3.0, 2.5]])
    np.testing.assert_array_equal(series["lr"], [[19], [0.1]])
    np.testing.assert_array_equal(series["bbox/AP"], [[30], [np.nan]])


def test_a_line_that_was_cut_off_is_passed_over(tmp_path, caplog):
    path = write(tmp_path / "metrics.json", [{"iteration": 1, "total_loss": 1.0}], '{"iterat')
    with caplog.at_level(logging.WARNING, logger="ion_d2"):
        assert list(read_metrics(path)) == ["total_loss"]
    assert "1 lines of" in caplog.text
    assert read_metrics(str(tmp_path / "absent.json")) == {}


def series(evaluations):
    steps = np.arange(19, 200, 20)
    found = {name: (steps, np.geomspace(3, 1, 10)) for name in ("total_loss", "loss_a", "loss_$b$")}
    found["lr"] = (steps, np.full(10, 0.01))
    found["time"] = (steps, np.full(10, 0.25))
    if evaluations:
        found["bbox/AP50"] = (np.arange(evaluations) * 50, np.linspace(10, 60, evaluations))
    return found


def test_section_shows_losses_rate_and_progress():
    page = check_page(render_report("T", [training_section(series(4))]))
    assert len(page.plots()) == 3
    text = page.text() + page.drawn_text()
    for word in ("loss_a", "loss_$b$", "200 iterations", "0.25 s", "bbox/AP50 ends at 60.0"):
        assert word in text
    assert len(check_page(render_report("T", [training_section(series(1))])).plots()) == 2


def test_without_metrics_there_is_a_sentence():
    page = check_page(render_report("T", [training_section({})]))
    assert "no metrics.json" in page.text() and not page.plots()
