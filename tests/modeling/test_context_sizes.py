"""The blocks have as many parameters as the paper says, and their checkpoints' names."""

import pytest
import torch

from ion_d2.modeling.context import IRNN, RNN, Conv, GlobalAverage


def num_parameters(build):
    with torch.device("meta"):
        return sum(p.numel() for p in build().parameters())


def test_parameter_counts_of_table_7():
    assert num_parameters(lambda: Conv(512)) == 2 * (512 * 512 * 9 + 512) == 4_719_616
    wide = num_parameters(lambda: Conv(512, hidden_dim=256, out_dim=256, kernel_size=5))
    assert wide == 512 * 256 * 25 + 256 * 256 * 25 + 2 * 256 == 4_915_712
    assert num_parameters(lambda: GlobalAverage(512)) == 0
    assert num_parameters(lambda: IRNN(512, transition="identity")) == 2_360_832
    # "The IRNN layers have fewer parameters than the alternatives" (sec. 5.4).
    assert num_parameters(lambda: IRNN(512)) == 4_457_984 < 4_719_616


@pytest.mark.parametrize("hidden", [128, 256, 512, 1024])
def test_parameter_counts_of_table_8(hidden):
    convolutions = 513 * hidden + (4 * hidden + 1) * hidden + (4 * hidden + 1) * 512
    fixed = num_parameters(lambda: IRNN(512, hidden_dim=hidden, transition="identity"))
    learned = num_parameters(lambda: IRNN(512, hidden_dim=hidden))
    assert (fixed, learned) == (convolutions, convolutions + 8 * hidden**2)
    diagonal = num_parameters(lambda: IRNN(512, hidden_dim=hidden, transition="diagonal"))
    assert diagonal == convolutions + 8 * hidden


def test_parameter_counts_of_the_other_irnns():
    plain = num_parameters(lambda: IRNN(512))
    # Sharing removes 6 of the 1x1 convolutions (sec. 3.2): 3 of each stack.
    removed = 3 * (512 * 512 + 512) + 3 * (2048 * 512 + 512)
    assert num_parameters(lambda: IRNN(512, shared_input=False)) - plain == removed
    assert num_parameters(lambda: IRNN(512, first_step_bias=True)) - plain == 8 * 512
    halves = num_parameters(lambda: IRNN(512, directions=[["left", "right"], ["up", "down"]]))
    assert halves == 512 * 513 + 2 * 512 * 1025 + 4 * 512 * 512
    assert num_parameters(lambda: IRNN(512, all_stacks=True)) == plain


@pytest.mark.parametrize(("cell", "gates"), [("tanh", 1), ("gru", 3), ("lstm", 4)])
def test_parameter_counts_of_torch_cells(cell, gates):
    stacks = sum(4 * gates * (width * 512 + 512 * 512 + 2 * 512) for width in (512, 2048))
    assert num_parameters(lambda: RNN(512, cell=cell)) == stacks + 2049 * 512
