"""The benchmark of the spatial IRNN: what it compares, and what it writes."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module("benchmark_irnn")


def test_report_and_plot(tool, monkeypatch, tmp_path, capsys):
    arguments = ["--sizes", "1x4x5x6", "1x64x16x16", "--rounds", "1", "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["benchmark_irnn.py", *arguments])
    tool.main()
    rows = json.loads((tmp_path / "irnn.json").read_text())["rows"]
    small = {(r["kind"], r["contender"]) for r in rows if r["size"] == "1x4x5x6"}
    assert {c for k, c in small if k == "full"} >= {"ion_d2 torch", "plain loop", "nn.RNN"}
    assert {k for k, _ in small} == set(tool.KINDS)
    assert all(r["forward_ms"] > 0 and r["both_ms"] > 0 for r in rows)
    assert (tmp_path / "irnn.png").read_bytes()[:4] == b"\x89PNG"
    assert len(capsys.readouterr().out.splitlines()) == len(rows)


def test_without_squares_there_is_no_plot(tool, monkeypatch, tmp_path):
    arguments = ["--sizes", "1x4x5x6", "--kinds", "full", "--rounds", "1", "--output", tmp_path]
    monkeypatch.setattr(sys, "argv", ["benchmark_irnn.py", *map(str, arguments)])
    tool.main()
    assert [path.name for path in tmp_path.iterdir()] == ["irnn.json"]


def test_extra_memory_is_what_is_held_at_most(tool):
    kept = []

    def call():
        large = torch.zeros(1 << 20)
        kept.append(torch.zeros(1 << 18))
        del large

    assert tool.extra_bytes(call, "cpu") == (1 << 22) + (1 << 20)
