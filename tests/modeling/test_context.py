"""The context block and the backbone that adds it, alone."""

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from torch import nn

from ion_d2.layers import spatial_irnn_reference
from ion_d2.layers.irnn import op
from ion_d2.modeling.context import IRNN, ContextBackbone


@pytest.mark.parametrize("transition", ["full", "diagonal"])
def test_transition_starts_as_identity(transition):
    torch.manual_seed(0)
    learned = IRNN(4, hidden_dim=6, out_dim=5, transition=transition).eval()
    fixed = IRNN(4, hidden_dim=6, out_dim=5, transition="identity").eval()
    missing, unexpected = fixed.load_state_dict(learned.state_dict(), strict=False)
    assert not missing and all("weight" in key for key in unexpected)
    x = torch.randn(2, 4, 5, 7)
    torch.testing.assert_close(learned(x), fixed(x))


def test_every_cell_sees_every_other_after_two_stacks_but_not_after_one():
    # All positive, so that no ReLU closes and every path carries a gradient.
    x = torch.ones(1, 3, 6, 7, dtype=torch.float64, requires_grad=True)
    reached = {}
    for stacks in (1, 2):
        block = IRNN(3, hidden_dim=16, out_dim=8, num_stacks=stacks, dropout=0.0).double()
        for parameter in block.parameters():
            parameter.data.abs_()
        gradient = torch.autograd.grad(block(x)[0, :, 2, 3].sum(), x)[0].abs().sum(1)[0] > 0
        reached[stacks] = gradient
    assert reached[2].all()
    cross = torch.zeros(6, 7, dtype=torch.bool)
    cross[2], cross[:, 3] = True, True
    assert torch.equal(reached[1], cross)


def test_pass_through_starts_as_the_recurrences_alone():
    torch.manual_seed(5)
    block = IRNN(3, hidden_dim=3, out_dim=3, dropout=0.0, init="pass_through", bias_init=-0.5)
    x = torch.rand(1, 3, 4, 5)

    def sweeps(x):
        return spatial_irnn_reference(x).unflatten(1, (4, 3)).mean(dim=1)

    torch.testing.assert_close(block(x), sweeps(sweeps(x - 0.5) - 0.5))


def test_pass_through_between_unequal_widths():
    block = IRNN(3, hidden_dim=5, out_dim=2, init="pass_through", dropout=0.0)
    x = torch.rand(1, 3, 4, 5)
    assert torch.equal(block.convs[0](x)[:, :3], x) and (block.convs[0](x)[:, 3:] == 0).all()
    assert block(x).shape == (1, 2, 4, 5)


def test_dropout_acts_in_training_only():
    block = IRNN(3, hidden_dim=4, out_dim=4, dropout=0.5)
    x = torch.randn(1, 3, 5, 5)
    assert not torch.equal(block(x), block(x))
    block.eval()
    assert torch.equal(block(x), block(x))


class _Strided(Backbone):
    """A backbone whose sides round up, as those of Detectron2's ResNets do."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, kernel_size=3, stride=4, padding=1)

    def forward(self, x):
        return {"s4": self.conv(x)}

    def output_shape(self):
        return {"s4": ShapeSpec(channels=4, stride=4)}


def test_any_backbone_can_be_wrapped_and_its_rounding_is_met():
    torch.manual_seed(3)
    model = ContextBackbone(_Strided(), IRNN(4, hidden_dim=4, out_dim=5).eval(), "s4")
    assert model.output_shape()["context"].stride == 4
    assert model.output_shape()["context"].channels == 5
    x = torch.randn(2, 3, 21, 30)
    features = model(x, [(21, 18), (13, 30)])
    assert features["context"].shape == (2, 5, 6, 8)
    # 18 pixels are 4.5 cells, of which a strided convolution makes 5.
    assert (features["context"][0, :, :, 5:] == 0).all()
    assert (features["context"][0, :, :, 4] != 0).any()
    assert (features["context"][1, :, 4:] == 0).all()


class _Square(_Strided):
    """Wants its batches padded to squares, as Detectron2's ViT does."""

    padding_constraints = {"square_size": 32}


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_trace_knows_padding_to_squares():
    torch.manual_seed(5)
    block = IRNN(4, hidden_dim=4, out_dim=5).eval()
    model = ContextBackbone(_Square(), block, "s4").requires_grad_(False)
    traced = torch.jit.trace(
        lambda x, size: model(x, [size])["context"],
        (torch.randn(1, 3, 32, 32), torch.tensor([32, 32])),
    )
    x = torch.randn(1, 3, 32, 32)
    expected = model(x, [(20, 25)])["context"]
    assert not torch.equal(expected, model(x)["context"])
    torch.testing.assert_close(traced(x, torch.tensor([20, 25])), expected)


def test_without_image_sizes_the_whole_map_counts():
    torch.manual_seed(4)
    model = ContextBackbone(_Strided(), IRNN(4, hidden_dim=4, out_dim=5).eval(), "s4")
    x = torch.randn(1, 3, 16, 16)
    assert torch.equal(model(x)["context"], model(x, [(16, 16)])["context"])


@pytest.mark.skipif(not op.CAN_REGISTER, reason="this PyTorch registers no operators")
def test_a_block_compiles_whole():
    block = IRNN(4, hidden_dim=4, out_dim=4).eval()
    x = torch.randn(1, 4, 5, 6)
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), block(x))
