"""Times of parts and counts of arithmetic, on models whose figures are known beforehand."""

import importlib
import time

import pytest
import torch
from detectron2.layers import ROIAlign
from model_helpers import make_input, small_model
from torch import nn

from ion_d2.layers.roi_align import ROIAlign as SparseROIAlign
from ion_d2.modeling.context.rnn import SpatialRNN
from ion_d2.modeling.context.spatial_irnn import SpatialIRNN


@pytest.fixture
def tool():
    return lambda name: importlib.import_module(f"benchmark_{name}")


class Slow(torch.autograd.Function):
    """Takes so many hundredths of a second forward, and twice as many backward."""

    @staticmethod
    def forward(ctx, x, hundredths):
        ctx.hundredths = hundredths
        time.sleep(hundredths / 100)
        return x * 1

    @staticmethod
    def backward(ctx, grad):
        time.sleep(2 * ctx.hundredths / 100)
        return grad, None


class Part(nn.Module):
    """Works before and after what is inside of it."""

    def __init__(self, hundredths, **inside):
        super().__init__()
        self.hundredths = hundredths
        for name, module in inside.items():
            self.add_module(name, module)

    def forward(self, x):
        for module in self.children():
            x = module(Slow.apply(x, self.hundredths))
        return {"x": Slow.apply(x, self.hundredths)}["x"]


def test_each_part_has_its_time_forward_and_backward(tool):
    parts = tool("parts")
    inside = {"box_head": Part(3), "mask_head": Part(1)}
    net = Part(
        2,
        backbone=Part(1, context=Part(4)),
        proposal_generator=Part(1),
        roi_heads=Part(1, **inside),
    )
    start, marks = time.perf_counter(), []
    x = torch.ones(1, requires_grad=True)
    with parts.PartMarks(net, lambda *part: marks.append((part, time.perf_counter()))):
        net(x).backward()
    end = time.perf_counter()
    found = dict.fromkeys((part for part, _ in marks), 0.0)
    for (part, since), (_, until) in zip(marks, [*marks[1:], (None, end)]):
        found[part] += until - since
    # A part sleeps once more than it has parts inside. What one had of another's time, that one
    # would lack: none may have less than its own, and all together have the whole.
    hundredths = {
        "left over": 8, "backbone": 2, "context": 4, "RPN": 1, "post-processing": 3,
        "fully connected": 3, "masks, keypoints": 1,
    }  # fmt: skip
    for part, slept in hundredths.items():
        assert found[part, "forward"] >= slept / 100, part
        assert found[part, "backward"] >= 2 * slept / 100, part
    assert sum(found.values()) == pytest.approx(end - start, abs=0.02)


def test_sums_of_modules_are_divided_among_the_parts(tool):
    net = Part(0, backbone=Part(0, context=Part(0)), roi_heads=Part(0, box_head=Part(0)))
    totals = {"": 100, "backbone": 60, "backbone.context": 25, "roi_heads": 30}
    found = tool("parts").by_part(net, {**totals, "roi_heads.box_head": 28})
    assert found == {
        "left over": 10, "backbone": 35, "context": 25, "post-processing": 2, "fully connected": 28
    }  # fmt: skip


class OnImage(nn.Module):
    """A layer as a detector is called."""

    def __init__(self, layer, *others):
        super().__init__()
        self.layer, self.others = layer, others

    def forward(self, inputs):
        return self.layer(inputs[0]["image"][None], *self.others)


# On (1, 3, 4, 5). A box of 4 x 4 cells, aligned, in 2 x 2 bins: one sample in the middle of a bin
# reads the four cells around it, and so do four samples, each in the middle of one of them.
BOX = torch.tensor([[0.0, 0, 0, 4, 4]])
COUNTS = {
    "convolution": (nn.Conv2d(3, 7, 1), 3 * 7 * 20),
    "full": (SpatialIRNN(3), 4 * 3 * 20 * 3),
    "full, two directions": (SpatialIRNN(3, directions=("up", "left")), 2 * 3 * 20 * 3),
    "diagonal": (SpatialIRNN(3, "diagonal"), 4 * 3 * 20),
    "identity": (SpatialIRNN(3, "identity"), 4 * 3 * 20),
    # Input-to-hidden and hidden-to-hidden of three gates, at every cell, in two directions.
    "GRU": (SpatialRNN(3, 5, "gru", ("up", "left")), 2 * 20 * 3 * (5 * 3 + 5 * 5)),
    "ROIAlign, a sample": (SparseROIAlign((2, 2), 1.0, 1, True), 4 * 4 * 3),
    "ROIAlign, four samples": (SparseROIAlign((2, 2), 1.0, 2, True), 4 * 4 * 3),
    "Detectron2's ROIAlign": (ROIAlign((2, 2), 1.0, 0, True), 4 * 4 * 3),
}


@pytest.mark.parametrize("name", COUNTS)
def test_multiply_adds_as_counted_by_hand(tool, name):
    layer, expected = COUNTS[name]
    net = OnImage(layer, *([BOX] if "ROIAlign" in name else []))
    found = tool("flops").count_flops(net, [{"image": torch.rand(3, 4, 5)}])
    assert found[""] == found["layer"] == expected


def test_multiply_adds_of_the_parts_of_a_detector(tool):
    net = small_model("MODEL.CONTEXT.TRANSITION", "full", "MODEL.RPN.POST_NMS_TOPK_TEST", 9).eval()
    found = tool("parts").by_part(net, tool("flops").count_flops(net, [make_input()]))
    # 6 x 8 cells, 64 channels in, 16 hidden: three 1x1 convolutions, and two recurrences.
    assert found["context"] == 48 * (3 * 64 * 16 + 2 * 4 * 16 * 16)
    # 9 boxes of 7 x 7 bins, 32 + 64 + 64 + 16 channels to 64; then fc6, fc7, scores and deltas.
    assert found["merging"] == 9 * 49 * 176 * 64
    assert found["fully connected"] == 9 * (49 * 64 * 32 + 32 * 32 + 32 * (4 + 12))
