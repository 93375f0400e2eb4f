"""The line that is logged while a model trains, and what other writers get of it."""

import json
import logging
import types

import pytest
import torch
from detectron2.utils.events import EventStorage, JSONWriter
from model_helpers import small_config

from ion_d2.engine import writers
from ion_d2.engine.writers import ProgressPrinter


@pytest.fixture
def report(tmp_path, caplog, monkeypatch):
    """Line and figures of the writers after 39 of 100 iterations, each of 8 images in 0.25 s."""

    def run(device="cpu", timed=True, iteration=39):
        cfg = small_config("SOLVER.IMS_PER_BATCH", 8)
        cfg.defrost()
        cfg.MODEL.DEVICE = device
        monkeypatch.setattr(logging.getLogger("detectron2"), "propagate", True)
        caplog.clear()
        with EventStorage(iteration) as storage, caplog.at_level(logging.INFO, logger="detectron2"):
            storage.put_scalars(total_loss=1.5, lr=0.1, **({"time": 0.25} if timed else {}))
            path = tmp_path / "metrics.json"
            path.unlink(missing_ok=True)
            for writer in (ProgressPrinter(cfg, 100), JSONWriter(str(path))):
                writer.write()
                writer.close()
        return caplog.messages, json.loads(path.read_text())

    return run


def test_speed_and_the_process_own_memory_without_a_gpu(report, monkeypatch):
    usage = types.SimpleNamespace(ru_maxrss=3 * 2**20)
    monkeypatch.setattr(writers.resource, "getrusage", lambda who: usage)
    monkeypatch.setattr(writers.sys, "platform", "linux")  # counts KiB
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (line,), figures = report()
    assert line.startswith(" eta: 0:00:15  iter: 39  total_loss: 1.5")
    assert line.endswith("lr: 0.1  images/s: 32  max_rss: 3072M")
    told = {"images_per_second": 32, "max_rss_mb": 3072, "eta_seconds": 15, "total_loss": 1.5}
    assert figures.items() >= told.items()
    monkeypatch.setattr(writers.sys, "platform", "darwin")  # counts bytes
    assert report()[0][0].endswith("max_rss: 3M")


def test_the_memory_of_the_gpu_is_told_once(report, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 5 * 2**20)
    (line,), figures = report("cuda")
    assert line.endswith("max_mem: 5M  images/s: 32") and "rss" not in line
    assert figures["max_mem_mb"] == 5 and "max_rss_mb" not in figures


def test_before_a_time_is_known_and_after_the_end(report):
    (line,), figures = report(timed=False)
    assert "max_rss" in line and "images/s" not in line and "images_per_second" not in figures
    lines, figures = report(iteration=100)
    assert lines == [] and "images_per_second" not in figures


def test_where_python_cannot_tell_the_memory(report, monkeypatch):
    monkeypatch.setattr(writers, "resource", None)
    (line,), figures = report()
    assert line.endswith("images/s: 32") and "max_rss_mb" not in figures


def test_a_training_that_is_stopped_early_is_told_of_once(caplog, monkeypatch):
    """Its last step, of which no time is known yet, is written again when it ends."""
    monkeypatch.setattr(logging.getLogger("detectron2"), "propagate", True)
    writer = ProgressPrinter(small_config("SOLVER.IMS_PER_BATCH", 8), 100)
    with EventStorage(1) as storage, caplog.at_level(logging.INFO, logger="detectron2"):
        storage.put_scalars(total_loss=1.5, lr=0.1)
        for _ in range(2):
            writer.write()
    assert len(caplog.messages) == 1
