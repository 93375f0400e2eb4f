"""losses.png and validation.md of a training that is under way."""

from __future__ import annotations

import json
import logging
from types import SimpleNamespace

import pytest
from PIL import Image

from ion_lab.report import training_files
from ion_lab.report.training_files import RefreshTrainingFiles, write_training_files

ENTRIES = [
    {"iteration": 19, "total_loss": 3.0, "loss_cls": 2.0, "lr": 0.1},
    {"iteration": 29, "bbox/AP": 12.34, "bbox/AP-cat": 1.0, "validation/total_loss": 1.2345},
    {"iteration": 39, "total_loss": 2.0, "loss_cls": 1.5, "lr": 0.1},
    {"iteration": 40, "bbox/AP": 40.0, "a/segm/AP50": 7.0, "bbox_coco/AP": 3.0},
]


def write_metrics(folder, entries):
    (folder / "metrics.json").write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_figures_of_each_evaluation(tmp_path):
    write_metrics(tmp_path, ENTRIES)
    write_training_files(str(tmp_path))
    headers, _, *rows = map(cells, (tmp_path / "validation.md").read_text().splitlines())
    assert headers == ["iteration", "a/segm/AP50", "bbox/AP", "validation/total_loss"]
    assert rows == [["29", "-", "12.3", "1.234"], ["40", "7.0", "40.0", "-"]]
    assert not list(tmp_path.glob("*.tmp"))


def test_a_plot_more_for_ap(tmp_path):
    widths = {}
    for count in (1, 2):  # without an evaluation, and with one
        write_metrics(tmp_path, ENTRIES[:count])
        write_training_files(str(tmp_path))
        with Image.open(tmp_path / "losses.png") as picture:
            assert picture.format == "PNG"
            widths[count] = picture.width
            # Something is drawn in the color of the first line.
            assert (0x2F, 0x7F, 0xD1) in {
                color for _, color in picture.convert("RGB").getcolors(10**6)
            }
    assert widths[2] == pytest.approx(1.5 * widths[1], abs=2)


def test_before_the_first_step(tmp_path):
    write_training_files(str(tmp_path))
    assert "Nothing was evaluated" in (tmp_path / "validation.md").read_text()
    assert not (tmp_path / "losses.png").exists()


@pytest.fixture
def steps(monkeypatch):
    """Iterations after which the files are written, in steps of a second; writing takes some."""

    def run(period, takes):
        now, written = [1000.0], []
        monkeypatch.setattr(training_files.time, "monotonic", lambda: now[0])
        hook = RefreshTrainingFiles("folder", period)

        def write(folder):
            written.append(hook.trainer.iter + 1)
            now[0] += takes

        monkeypatch.setattr(training_files, "write_training_files", write)
        for iteration in range(400):
            hook.trainer = SimpleNamespace(iter=iteration)
            hook.after_step()
            now[0] += 1
        hook.after_train()
        return written

    return run


@pytest.mark.parametrize(
    ("period", "takes", "expected"),
    [
        (0, 0, [20, 80, 140, 200, 260, 320, 380, 400]),
        (0, 2, [20, 220, 400]),  # a hundredth of the time
        (150, 2, [20, 150, 300, 400]),
    ],
)
def test_when_the_files_are_refreshed(steps, period, takes, expected):
    assert steps(period, takes) == expected


def test_a_failure_is_logged_and_stops_nothing(tmp_path, caplog):
    write_metrics(tmp_path, ENTRIES)
    (tmp_path / "losses.png").mkdir()
    with caplog.at_level(logging.WARNING, logger="ion_lab"):
        RefreshTrainingFiles(str(tmp_path), 0).after_train()
    assert "losses.png" in caplog.text and "not refreshed" in caplog.text
    assert not list(tmp_path.glob("*.tmp"))
