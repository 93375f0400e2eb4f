"""The command that fetches VOC and SBD, and what the shipped config makes of it."""

from __future__ import annotations

import sys

import pytest
from cli_helpers import load_tool
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_pascal_voc
from file_server import FileServer
from refusals import refused
from voc_archives import releases_at, write_archives

from ion_d2.data.catalog import ensure_registered
from ion_d2.engine.setup import load_config, run_cli
from ion_d2.engine.trainer import IONTrainer


@pytest.fixture
def tool():
    return load_tool("prepare_voc")


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
    cfg = load_config("configs/ion_vgg16_voc_seg.yaml", ["DATALOADER.NUM_WORKERS", "0"])
    ensure_registered(cfg.DATASETS.TRAIN)
    loader = IONTrainer.build_train_loader(cfg)
    seen = {}
    for _, batch in zip(range(4), loader):
        for data in batch:
            labels = data.get("sem_seg")
            seen[data["image_id"]] = None if labels is None else labels.unique().tolist()
    # VOC's own labels come first, then SBD's; 2007_000027 is a picture of VOC 2007's test set.
    assert seen == {"000005": None, "000032": [3], "2007_000032": None, "2008_000002": [5],
                    "2008_000003": [7], "2009_000001": [7]}  # fmt: skip


def test_the_config_says_what_to_run_first(datasets):
    with refused("voc_2007_trainval_0712S", "tools/prepare_voc.py", datasets):
        ensure_registered(["voc_2007_trainval_0712S"])


def test_what_came_before_a_failure_is_kept(tool, server, tmp_path, monkeypatch, capsys):
    del server.files["/benchmark.tgz"]
    root = tmp_path / "there"
    monkeypatch.setattr(sys, "argv", ["prepare_voc.py", str(root), "--archives", str(root / "a")])
    with pytest.raises(SystemExit) as stop:
        run_cli(tool.main)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert stop.value.code == 1 and "404" in line and "/benchmark.tgz" in line
    assert [release.is_complete(str(root)) for release in tool.RELEASES] == [True] * 3 + [False]
    assert len(list((root / "a").glob("VOC*.tar"))) == 3
