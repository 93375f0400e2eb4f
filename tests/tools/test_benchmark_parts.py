"""Times of parts and counts of arithmetic, on models whose figures are known beforehand."""

import importlib

import pytest
import torch
from detectron2.layers import ROIAlign
from matplotlib.figure import Figure
from model_helpers import make_input, small_model
from torch import nn

from ion_d2.layers.roi_align import ROIAlign as SparseROIAlign
from ion_d2.modeling.context.rnn import SpatialRNN
from ion_d2.modeling.context.spatial_irnn import SpatialIRNN
from ion_lab.report.charts import SERIES, stacked_plot


@pytest.fixture
def tool():
    return lambda name: importlib.import_module(f"benchmark_{name}")


class Work(torch.autograd.Function):
    """Tells when it runs forward, and when backward."""

    @staticmethod
    def forward(ctx, x, tell):
        ctx.tell = tell
        tell("forward")
        return x * 1

    @staticmethod
    def backward(ctx, grad):
        ctx.tell("backward")
        return grad, None


class Part(nn.Module):
    """Works before and after what is inside of it."""

    def __init__(self, tell, **inside):
        super().__init__()
        self.tell = tell
        for name, module in inside.items():
            self.add_module(name, module)

    def forward(self, x):
        for module in self.children():
            x = module(Work.apply(x, self.tell))
        return {"x": Work.apply(x, self.tell)}["x"]


def test_the_last_mark_names_the_part_that_works(tool):
    mark, seen = [None], []

    def part(name, **inside):
        return Part(lambda way: seen.append(((name, way), mark[0])), **inside)

    inside = {"box_head": part("fully connected"), "mask_head": part("masks, keypoints")}
    net = part(
        "left over",
        backbone=part("backbone", context=part("context")),
        proposal_generator=part("RPN"),
        roi_heads=part("post-processing", **inside),
    )
    with tool("parts").PartMarks(net, lambda *place: mark.__setitem__(0, place)):
        net(torch.ones(1, requires_grad=True)).backward()
    # Once more than a part has parts inside of it, each way: 4 + 2 + 1 + 1 + 3 + 1 + 1.
    assert len(seen) == 2 * 13
    assert all(working == marked for working, marked in seen)


def test_sums_of_modules_are_divided_among_the_parts(tool):
    heads = Part(None, box_head=Part(None))
    net = Part(None, backbone=Part(None, context=Part(None)), roi_heads=heads)
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


def test_each_part_of_a_bar_looks_its_own():
    axes = Figure().add_subplot()
    stacked_plot(["a model"], {f"part {n}": [1.0] for n in range(len(SERIES) + 2)}, "s").draw(axes)
    looks = {(bar.get_facecolor(), bar.get_hatch()) for bar in axes.patches}
    assert len(looks) == len(axes.patches) == len(SERIES) + 2
