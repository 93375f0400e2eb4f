"""The benchmark of the spatial IRNN: what it compares, and that it refuses wrong results."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module("benchmark_irnn")


def test_report_and_plot(benchmark, monkeypatch, tmp_path, capsys):
    arguments = ["--sizes", "1x4x5x6", "1x64x16x16", "--rounds", "1", "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["benchmark_irnn.py", *arguments])
    benchmark.main()
    rows = json.loads((tmp_path / "irnn.json").read_text())["rows"]
    small = {(r["kind"], r["contender"]) for r in rows if r["size"] == "1x4x5x6"}
    assert {c for k, c in small if k == "full"} >= {"ion_d2 torch", "plain loop", "nn.RNN"}
    assert {k for k, _ in small} == set(benchmark.KINDS)
    assert all(r["forward_ms"] > 0 and r["both_ms"] > 0 for r in rows)
    assert (tmp_path / "irnn.png").read_bytes()[:4] == b"\x89PNG"
    assert len(capsys.readouterr().out.splitlines()) == len(rows)


def test_without_squares_there_is_no_plot(benchmark, monkeypatch, tmp_path):
    arguments = ["--sizes", "1x4x5x6", "--kinds", "full", "--rounds", "1", "--output", tmp_path]
    monkeypatch.setattr(sys, "argv", ["benchmark_irnn.py", *map(str, arguments)])
    benchmark.main()
    assert [path.name for path in tmp_path.iterdir()] == ["irnn.json"]


def test_extra_memory_is_what_is_held_at_most(benchmark):
    kept = []

    def call():
        large = torch.zeros(1 << 20)
        kept.append(torch.zeros(1 << 18))
        del large

    assert benchmark.extra_bytes(call, "cpu") == (1 << 22) + (1 << 20)


def test_a_wrong_contender_ends_the_run(benchmark):
    case = benchmark.Case("1x4x5x6", "identity", "cpu")
    wrong = {"wrong": lambda x, weight: benchmark.spatial_irnn_reference(x) * 1.001}
    with pytest.raises(SystemExit, match="wrong is wrong on .*identity: the states"):
        benchmark.check(case, wrong)
