"""The benchmark at a small size: its figures are there and are those of what it says."""

import json

import pytest
import torch
from cli_helpers import load_tool
from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes

from ion_d2.modeling import SkipPooler

SMALL = ["--repeats", "1", "--image-size", "96", "128"]


@pytest.fixture
def run(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend("tools")
    benchmark = load_tool("benchmark")

    def run(*arguments):
        path = tmp_path / "figures.json"
        monkeypatch.setattr("sys.argv", ["benchmark.py", *arguments, *SMALL, "--json", str(path)])
        benchmark.main()
        return json.loads(path.read_text())

    return run


KINDS = ("ROIPool", "ROIAlignV2")


@pytest.mark.parametrize("kind", KINDS)
def test_pooler(run, kind):
    (rows,) = run("pooler", "--rois", "6", "--kind", kind).values()
    assert list(rows) == ["step by step", "SkipPooler"]
    assert all(row["seconds"] > 0 for row in rows.values())


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_compared_gives_the_same(kind):
    works = load_tool("benchmark_works")
    torch.manual_seed(0)
    shapes = [ShapeSpec(channels=c, stride=s) for c, s in works.FEATURES]
    features = [torch.rand(1, s.channels, 96 // s.stride, 128 // s.stride) for s in shapes]
    boxes = [Boxes(torch.tensor([[3.0, 5, 60, 70], [10, 10, 22, 19]]))]
    pooler = SkipPooler(shapes, pooler_type=kind)
    got, expected = pooler(features, boxes), works.literal_pooler(pooler, kind, features, boxes)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-3)


def test_data(run, capsys):
    assert run("data")["loading"]["one picture"]["seconds"] > 0
    assert "20 made pictures of 500 x 375" in capsys.readouterr().out


@pytest.mark.slow
def test_models(run):
    configs = ["configs/faster_rcnn_tiny.yaml", "configs/ion_tiny.yaml"]
    figures = run("models", *configs, "--opts", "MODEL.DEVICE", "cpu")
    assert list(figures) == ["inference", "training step"]
    for rows in figures.values():
        assert list(rows) == ["faster_rcnn_tiny", "ion_tiny"]
        assert all(row["seconds"] > 0 for row in rows.values())
