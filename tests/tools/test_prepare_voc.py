"""The command that fetches VOC and SBD, and what the shipped config makes of it."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_pascal_voc
from file_server import FileServer
from voc_archives import releases_at, write_archives

from ion_d2.data.catalog import ensure_registered
from ion_d2.engine.setup import load_config, run_cli
from ion_d2.engine.trainer import IONTrainer
from ion_d2.errors import IONError

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "prepare_voc.py"


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location("prepare_voc", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def server(tmp_path, tool, monkeypatch):
    (tmp_path / "made").mkdir()
    contents = write_archives(tmp_path / "made")
    with FileServer({f"/{name}": content for name, content in contents.items()}).running() as found:
        monkeypatch.setattr(tool, "RELEASES", releases_at(found.address, contents))
        yield found


@pytest.fixture
def datasets(tmp_path):
    """Detectron2's VOC datasets in a folder of the test; the catalogs as they were, afterwards."""
    saved = dict(DatasetCatalog.data), dict(MetadataCatalog.data)
    root = tmp_path / "datasets"
    for year in (2007, 2012):
        name = f"voc_{year}_trainval"
        classes = MetadataCatalog.get(name).thing_classes
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
        register_pascal_voc(name, str(root / f"VOC{year}"), "trainval", year, classes)
    yield root
    DatasetCatalog.data, MetadataCatalog.data = saved


def test_the_voc_config_reads_the_result(tool, server, datasets, capsys):
    tool.main([str(datasets)])
    out = capsys.readouterr().out
    assert "VOC2007:trainval_0712S: 2 images" in out
    assert "VOC2012:trainval_0712S: 4 images" in out
    requests = len(server.log)
    tool.main([str(datasets)])
    assert capsys.readouterr().out == out
    assert len(server.log) == requests
    cfg = load_config("configs/ion_vgg16_voc_seg.yaml", ["DATALOADER.NUM_WORKERS", "0"])
    ensure_registered(cfg.DATASETS.TRAIN)
    loader = IONTrainer.build_train_loader(cfg)
    assert loader.first_iteration == 0
    seen = {}
    for _, batch in zip(range(4), loader):
        for data in batch:
            labels = data.get("sem_seg")
            seen[data["image_id"]] = None if labels is None else labels.unique().tolist()
    # VOC's own labels come first, then SBD's; 2007_000027 is a picture of VOC 2007's test set.
    assert seen == {"000005": None, "000032": [3], "2007_000032": None, "2008_000002": [5],
                    "2008_000003": [7], "2009_000001": [7]}  # fmt: skip


def test_the_config_says_what_to_run_first(datasets):
    with pytest.raises(IONError, match=r"voc_2007_trainval_0712S.*tools/prepare_voc\.py") as caught:
        ensure_registered(["voc_2007_trainval_0712S"])
    assert str(datasets) in str(caught.value)


@pytest.mark.parametrize(
    ("fault", "words"),
    [("gone", ("404", "/benchmark.tgz")), ("broken", ("benchmark.tgz", "checksum"))],
)
def test_failures_are_one_sentence_and_what_came_before_is_kept(
    tool, server, tmp_path, monkeypatch, capsys, fault, words
):
    if fault == "gone":
        del server.files["/benchmark.tgz"]
    else:
        server.files["/benchmark.tgz"] = b"something else"
    root = tmp_path / "there"
    monkeypatch.setattr(sys, "argv", ["prepare_voc.py", str(root), "--archives", str(root / "a")])
    with pytest.raises(SystemExit) as stop:
        run_cli(tool.main)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert stop.value.code == 1 and len(lines) == 1
    assert all(word in lines[0] for word in words)
    assert [release.is_complete(str(root)) for release in tool.RELEASES] == [True] * 3 + [False]
    assert sorted(os.listdir(root / "a"))[0].startswith("VOCtest")
