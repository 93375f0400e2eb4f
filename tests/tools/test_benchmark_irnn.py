"""The benchmark of the spatial IRNN: what it compares, and what it writes."""

import importlib
import json

import pytest
import torch

from ion_d2 import IONError
from ion_d2.layers import spatial_irnn_reference


@pytest.fixture
def tool():
    return importlib.import_module("benchmark_irnn")


def test_report_and_plot(tool, tmp_path):
    files = ["--json", str(tmp_path / "irnn.json"), "--chart", str(tmp_path / "irnn.png")]
    sizes = ["--sizes", "1x4x5x6", "1x64x16x16", "--repeats", "1"]
    importlib.import_module("benchmark").main(["irnn", *sizes, "--device", "cpu", *files])
    tables = json.loads((tmp_path / "irnn.json").read_text())["figures"]
    assert len(tables) == 2 * len(tool.KINDS)
    assert set(tables["1x4x5x6, full"]) >= {"ion_d2 torch", "plain loop", "nn.RNN"}
    rows = [row for table in tables.values() for row in table.values()]
    assert all(row["forward ms"] > 0 and row["both ms"] > 0 for row in rows)
    assert (tmp_path / "irnn.png").read_bytes()[:4] == b"\x89PNG"


def test_without_squares_there_is_no_plot(tool):
    assert tool.plot_irnn({"1x4x5x6, full": {"plain loop": {"both ms": 1.0}}}) == {}


def test_extra_memory_is_what_is_held_at_most(tool):
    def call():
        large = torch.zeros(1 << 20)
        kept = torch.zeros(1 << 18)
        del large
        return [kept]

    assert tool.extra_bytes(call, torch.device("cpu")) == 1 << 22


def test_what_is_wrong_is_not_timed(tool):
    case = tool.Case("1x4x5x6", "identity", torch.device("cpu"))
    with pytest.raises(IONError, match="new is wrong on 1x4x5x6, identity: the states are off"):
        case.check("new", lambda x, weight: spatial_irnn_reference(x) * 1.001)


@pytest.mark.parametrize("kind", ["identity", "diagonal", "full"])
def test_all_have_the_gradients_of_the_definition(tool, kind):
    case = tool.Case("1x4x5x6", kind, torch.device("cpu"))
    found = case.contenders()
    expected = case.gradients(spatial_irnn_reference)
    for name, contender in found.items():
        by_x, *by_weight = case.gradients(contender)
        torch.testing.assert_close(by_x, expected[0], rtol=1e-4, atol=1e-5, msg=name)
        if by_weight:
            by_weight = torch.stack(by_weight).squeeze(0)
            torch.testing.assert_close(by_weight, expected[1], rtol=1e-4, atol=1e-5, msg=name)
