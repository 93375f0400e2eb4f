"""The spatial IRNN leaves Python: TorchScript, torch.export and ONNX give the same numbers."""

import io
from typing import Optional

import pytest
import torch
from irnn_cases import KINDS, make_weight

from ion_d2.layers import spatial_irnn, spatial_irnn_reference
from ion_d2.layers.irnn.op import CAN_REGISTER
from ion_d2.modeling.context import SpatialIRNN

SIZES = torch.tensor([[4, 6], [2, 3]])


class Sweep(torch.nn.Module):
    """A module that uses the operator as users do, in the middle of other operators."""

    def __init__(self, kind):
        super().__init__()
        torch.manual_seed(0)
        weight = make_weight(kind, 3)
        self.register_parameter("weight", None if weight is None else torch.nn.Parameter(weight))

    def forward(self, x, sizes):
        return spatial_irnn(x * 2, self.weight, sizes=sizes) + 1

    def expected(self, x, sizes):
        return (spatial_irnn_reference(x * 2, self.weight, sizes=sizes) + 1).detach()


def other_input():
    """A map of another size than the one that is exported with, and sizes for it."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, 5, 7, generator=generator), torch.tensor([[5, 2], [4, 7]])


def saved_and_loaded(script):
    buffer = io.BytesIO()
    torch.jit.save(script, buffer)
    buffer.seek(0)
    return torch.jit.load(buffer)


@pytest.mark.parametrize("kind", KINDS)
def test_trace_works_for_other_sizes_and_needs_no_ion(kind):
    model = Sweep(kind)
    trace = saved_and_loaded(torch.jit.trace(model, (torch.randn(2, 3, 4, 6), SIZES)))
    assert "ion_d2::" not in str(trace.inlined_graph)
    x, sizes = other_input()
    torch.testing.assert_close(trace(x, sizes), model.expected(x, sizes))


class Scripted(torch.nn.Module):
    """A module of a user's that is compiled as a whole."""

    def __init__(self, transition):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 1)
        self.irnn = SpatialIRNN(4, transition)

    def forward(self, x: torch.Tensor, sizes: Optional[torch.Tensor]) -> torch.Tensor:
        return self.irnn(self.conv(x), sizes)


@pytest.mark.parametrize("transition", KINDS)
def test_script_needs_no_ion(transition):
    torch.manual_seed(0)
    model = Scripted(transition)
    script = saved_and_loaded(torch.jit.script(model))
    assert "ion_d2::" not in str(script.inlined_graph)
    x, sizes = other_input()
    for given in (None, sizes):
        torch.testing.assert_close(script(x, given), model(x, given))


@pytest.mark.skipif(not CAN_REGISTER, reason="this PyTorch registers no operators")
@pytest.mark.parametrize("kind", KINDS)
def test_torch_export(kind):
    model = Sweep(kind)
    dims = {2: torch.export.Dim("height", min=2), 3: torch.export.Dim("width", min=2)}
    program = torch.export.export(
        model, (torch.randn(2, 3, 4, 6), SIZES), dynamic_shapes=(dims, None)
    )
    x, sizes = other_input()
    torch.testing.assert_close(program.module()(x, sizes), model.expected(x, sizes))
    assert "ion_d2.spatial_irnn" in str(program.graph)


class EveryKind(torch.nn.Module):
    """One sweep of each kind, since an export takes seconds."""

    def __init__(self):
        super().__init__()
        self.sweeps = torch.nn.ModuleList(Sweep(kind) for kind in KINDS)

    def forward(self, x, sizes):
        return torch.stack([sweep(x, sizes) for sweep in self.sweeps])

    def expected(self, x, sizes):
        return torch.stack([sweep.expected(x, sizes) for sweep in self.sweeps])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("padded", [False, True])
def test_onnx(padded, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    model = EveryKind().eval()
    path = str(tmp_path / "model.onnx")
    names = ["x", "sizes"] if padded else ["x"]
    example = (torch.randn(2, 3, 4, 6), SIZES if padded else None)
    options = {"dynamic_axes": {"x": {2: "height", 3: "width"}}, "opset_version": 17}
    torch.onnx.export(model, example, path, input_names=names, dynamo=False, **options)
    x, sizes = other_input()
    feed = {"x": x.numpy(), "sizes": sizes.numpy()}
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {name: feed[name] for name in names})
    expected = model.expected(x, sizes if padded else None)
    torch.testing.assert_close(torch.from_numpy(got), expected, rtol=1e-5, atol=1e-5)
