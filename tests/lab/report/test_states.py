"""The states that a report shows are those of the recurrence's definition."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ion_d2.layers import spatial_irnn_reference
from ion_d2.modeling.context import IRNN, RNN
from ion_lab.report.states import watch_states


@pytest.mark.parametrize("transition", ["identity", "diagonal", "full"])
def test_norms_are_those_of_the_definition(transition):
    torch.manual_seed(0)
    directions = [["right", "left", "down", "up"], ["up", "left"]]
    block = IRNN(3, hidden_dim=4, out_dim=2, transition=transition, directions=directions).eval()
    for irnn in block.irnns:
        if irnn.weight is not None:
            nn.init.normal_(irnn.weight, std=0.4)
    x = torch.randn(2, 3, 5, 6)
    with watch_states(block) as states:
        block(x)
    assert [stack.name for stack in states] == ["irnns.0", "irnns.1"]
    fed = x
    for conv, irnn, stack, names in zip(block.convs, block.irnns, states, directions):
        weight = None if irnn.weight is None else irnn.weight.double()
        fed = spatial_irnn_reference(conv(fed).double(), weight, directions=names)
        assert list(stack.norms) == names
        for norms, state in zip(stack.norms.values(), fed[0].split(4)):
            torch.testing.assert_close(torch.as_tensor(norms), state.norm(dim=0).float())
        fed = fed.float()


def test_other_recurrences_are_watched_and_left_alone_afterwards():
    block = RNN(3, cell="lstm", hidden_dim=4, out_dim=2, num_stacks=1, directions=[["down"]]).eval()
    with watch_states(block) as states:
        block(torch.randn(1, 3, 5, 6))
    block(torch.randn(1, 3, 5, 6))
    ((name, norms),) = [(stack.name, stack.norms) for stack in states]
    assert name == "rnns.0" and norms["down"].shape == (5, 6)
    with watch_states(nn.Conv2d(1, 1, 1)) as states:
        pass
    assert states == []
