"""The context blocks beside the plain IRNN: sizes of the paper, exact padding, exact arithmetic."""

import pytest
import torch
from detectron2.modeling import build_backbone
from detectron2.utils.events import EventStorage
from model_helpers import make_input, small_model
from torch import nn

from ion_d2.engine.setup import load_config
from ion_d2.errors import IONError
from ion_d2.modeling.backbone import (
    CONTEXT_REGISTRY,
    IRNN,
    RNN,
    Branches,
    Chain,
    Conv,
    GlobalAverage,
    SpatialIRNN,
    SpatialRNN,
    build_context_block,
)

# Each variant as a user chooses it: keys under MODEL.CONTEXT.
VARIANTS = {
    "diagonal": {"TRANSITION": "diagonal"},
    "left_right_up_down": {"TRANSITION": "full", "DIRECTIONS": [["left", "right"], ["up", "down"]]},
    "separate_input": {"TRANSITION": "full", "SHARED_INPUT": False},
    "first_step_bias": {"TRANSITION": "full", "FIRST_STEP_BIAS": True},
    "both_stacks": {"ALL_STACKS": True},
    "max": {"TRANSITION": "max"},
    "normalised": {"NORM": "BRN"},
    "normalised_conv": {"NAME": "Conv", "NORM": "BRN"},
    "normalised_average": {"NAME": "GlobalAverage", "NORM": "BRN"},
    "tanh": {"NAME": "RNN", "CELL": "tanh"},
    "gru": {"NAME": "RNN", "CELL": "gru"},
    "lstm": {"NAME": "RNN", "CELL": "lstm", "DIRECTIONS": [["up"], ["right", "left"]]},
    "conv": {"NAME": "Conv", "KERNEL_SIZE": 5},
    "average": {"NAME": "GlobalAverage"},
    "chain": {"NAME": "Chain", "PARTS": ["Conv", "IRNN"]},
    "branches": {"NAME": "Branches", "PARTS": ["IRNN", "Conv", "GlobalAverage"]},
}


def options(variant):
    return [part for key, v in VARIANTS[variant].items() for part in (f"MODEL.CONTEXT.{key}", v)]


def make_block(variant, in_channels=3, seed=0):
    """A small block with every parameter random, so that no term is hidden by a zero."""
    opts = ["MODEL.CONTEXT.HIDDEN_DIM", 6, "MODEL.CONTEXT.OUT_DIM", 5, *options(variant)]
    cfg = load_config("configs/ion_tiny.yaml", [str(part) for part in opts])
    torch.manual_seed(seed)
    block = build_context_block(cfg, in_channels).eval()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(std=0.4)
    return block


def outputs(block, x, sizes=None):
    result = block(x, sizes)
    return result if isinstance(result, dict) else {"context": result}


def num_parameters(build):
    with torch.device("meta"):
        return sum(p.numel() for p in build().parameters())


# ---- sizes of the paper


def test_parameter_counts_of_table_7():
    assert num_parameters(lambda: Conv(512)) == 2 * (512 * 512 * 9 + 512) == 4_719_616
    wide = num_parameters(lambda: Conv(512, hidden_dim=256, out_dim=256, kernel_size=5))
    assert wide == 512 * 256 * 25 + 256 * 256 * 25 + 2 * 256 == 4_915_712
    assert num_parameters(lambda: GlobalAverage(512)) == 0
    # "The IRNN layers have fewer parameters than the alternatives" (sec. 5.4).
    assert num_parameters(lambda: IRNN(512)) == 4_457_984 < 4_719_616


@pytest.mark.parametrize("hidden", [128, 256, 512, 1024])
def test_parameter_counts_of_table_8(hidden):
    convolutions = 513 * hidden + (4 * hidden + 1) * hidden + (4 * hidden + 1) * 512
    fixed = num_parameters(lambda: IRNN(512, hidden_dim=hidden, transition="identity"))
    learned = num_parameters(lambda: IRNN(512, hidden_dim=hidden))
    assert (fixed, learned) == (convolutions, convolutions + 8 * hidden**2)


def test_parameter_counts_of_the_other_irnns():
    plain = IRNN(512)
    separate = IRNN(512, shared_input=False)
    # Sharing removes 6 of the 1x1 convolutions (sec. 3.2): 3 of each stack.
    removed = 3 * (512 * 512 + 512) + 3 * (2048 * 512 + 512)
    count = {id(m): sum(p.numel() for p in m.parameters()) for m in (plain, separate)}
    assert count[id(separate)] - count[id(plain)] == removed
    biased = num_parameters(lambda: IRNN(512, first_step_bias=True))
    assert biased - count[id(plain)] == 8 * 512
    halves = num_parameters(lambda: IRNN(512, directions=[["left", "right"], ["up", "down"]]))
    assert halves == 512 * 513 + 2 * 512 * 1025 + 4 * 512 * 512
    both = num_parameters(lambda: IRNN(512, all_stacks=True))
    assert both == count[id(plain)]


@pytest.mark.parametrize(("cell", "gates"), [("tanh", 1), ("gru", 3), ("lstm", 4)])
def test_parameter_counts_of_torch_cells(cell, gates):
    stacks = sum(4 * gates * (width * 512 + 512 * 512 + 2 * 512) for width in (512, 2048))
    assert num_parameters(lambda: RNN(512, cell=cell)) == stacks + 2049 * 512


def test_checkpoints_of_the_plain_block_keep_their_names():
    names = {f"convs.{i}.{kind}" for i in (0, 1) for kind in ("weight", "bias")}
    names |= {"irnns.0.weight", "irnns.1.weight", "output.weight", "output.bias"}
    assert set(IRNN(4, hidden_dim=4, out_dim=4).state_dict()) == names


# ---- no leak


@pytest.mark.parametrize("variant", VARIANTS)
def test_context_depends_on_neither_padding_nor_batch_mates(variant):
    block = make_block(variant).double()
    x = torch.randn(3, 3, 6, 8, dtype=torch.float64)
    sizes = [(4, 5), (6, 8), (6, 1)]
    for n, (height, width) in enumerate(sizes):
        x[n, :, height:], x[n, :, :, width:] = 1e6, -1e6
    x.requires_grad_()
    together = outputs(block, x, torch.tensor(sizes))
    for n, (height, width) in enumerate(sizes):
        alone = outputs(block, x[n : n + 1, :, :height, :width])
        assert set(alone) == set(together)
        for name, feature in together.items():
            inside = feature[n, :, :height, :width]
            torch.testing.assert_close(inside, alone[name][0], rtol=1e-11, atol=1e-11)
            assert inside.any()
            assert not feature[n, :, height:].any() and not feature[n, :, :, width:].any()
    sum(f.square().sum() for f in together.values()).backward()
    for n, (height, width) in enumerate(sizes):
        assert x.grad[n, :, :height, :width].any()
        assert not x.grad[n, :, height:].any() and not x.grad[n, :, :, width:].any()


@pytest.mark.parametrize("variant", VARIANTS)
def test_odd_shapes(variant):
    block = make_block(variant)
    for shape in [(0, 3, 4, 5), (2, 3, 1, 1)]:
        x = torch.randn(shape)
        for feature in outputs(block, x).values():
            assert feature.shape[0] == shape[0] and feature.shape[2:] == shape[2:]
    empty = outputs(block, torch.randn(2, 3, 4, 5), torch.tensor([[0, 0], [4, 5]]))
    assert all(not f[0].any() and torch.isfinite(f).all() for f in empty.values())


@pytest.mark.parametrize("variant", VARIANTS)
def test_whole_model_trains_every_parameter(variant):
    features = ["conv3", "context"]
    features += {"both_stacks": ["context1"], "branches": ["context_conv"]}.get(variant, [])
    opts = [*options(variant), "MODEL.ROI_HEADS.IN_FEATURES", features]
    model = small_model(*opts).train()
    assert model.roi_heads.box_pooler.scale_source == 0
    with EventStorage():
        losses = model([make_input(64, 96), make_input(80, 64, seed=1)])
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


# ---- arithmetic


def travel(direction, height, width):
    """Lines of cells in the order of travel, by hand."""
    rows = [[(i, j) for j in range(width)] for i in range(height)]
    columns = [[(i, j) for i in range(height)] for j in range(width)]
    lines = rows if direction in ("right", "left") else columns
    return [line[::-1] if direction in ("left", "up") else line for line in lines]


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("transition", ["full", "diagonal", "identity"])
@torch.no_grad()
def test_irnn_with_first_step_bias_equals_a_loop_over_cells(shared, transition):
    torch.manual_seed(0)
    names = ("down", "left", "right", "up")
    layer = SpatialIRNN(
        2, transition, directions=names, shared_input=shared, first_step_bias=True
    ).double()
    for parameter in layer.parameters():
        parameter.normal_()
    x = torch.randn(1, 2 if shared else 8, 3, 4, dtype=torch.float64)
    result = layer(x)
    for d, name in enumerate(names):
        source = x[0] if shared else x[0, 2 * d : 2 * d + 2]
        weight = torch.eye(2).double() if transition == "identity" else layer.weight[d]
        weight = torch.diag(weight) if transition == "diagonal" else weight
        for line in travel(name, 3, 4):
            state = torch.zeros(2, dtype=torch.float64)
            for step, (i, j) in enumerate(line):
                state = weight @ state + source[:, i, j]
                state = (state + layer.first_step_bias[d] * (step == 0)).clamp(min=0)
                torch.testing.assert_close(result[0, 2 * d : 2 * d + 2, i, j], state)


@torch.no_grad()
def test_separate_inputs_that_are_equal_give_the_shared_result():
    torch.manual_seed(1)
    shared, separate = IRNN(3, hidden_dim=4), IRNN(3, hidden_dim=4, shared_input=False)
    state = shared.state_dict()
    for name in list(state):
        if name.startswith("convs."):
            state[name] = state[name].repeat(4, *[1] * (state[name].dim() - 1))
    separate.load_state_dict(state)
    x = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(separate.eval()(x), shared.eval()(x))


def test_pass_through_with_separate_inputs_and_few_directions():
    directions = [["left", "right"], ["up"]]
    pair = [
        IRNN(3, hidden_dim=3, out_dim=3, init="pass_through", directions=directions, shared_input=s)
        for s in (True, False)
    ]
    x = torch.rand(1, 3, 4, 5)
    expected = torch.flip(torch.flip(x, [3]).cumsum(3), [3]) + x.cumsum(3)
    expected = torch.flip(torch.flip(expected / 2, [2]).cumsum(2), [2])
    for block in pair:
        torch.testing.assert_close(block.eval()(x), expected)


STEPPERS = {"tanh": nn.RNNCell, "gru": nn.GRUCell, "lstm": nn.LSTMCell}


@pytest.mark.parametrize("cell", STEPPERS)
@torch.no_grad()
def test_torch_cells_equal_a_loop_over_cells(cell):
    torch.manual_seed(2)
    names = ("up", "left", "right", "down")
    layer = SpatialRNN(3, 2, cell, names).double()
    x = torch.randn(1, 3, 3, 4, dtype=torch.float64)
    result = layer(x)
    for d, name in enumerate(names):
        stepper = STEPPERS[cell](3, 2).double()
        stepper.load_state_dict(
            {k.replace("_l0", ""): v for k, v in layer.cells[d].state_dict().items()}
        )
        for line in travel(name, 3, 4):
            state = None
            for i, j in line:
                state = stepper(x[:, :, i, j], state)
                hidden = state[0] if cell == "lstm" else state
                torch.testing.assert_close(result[0, 2 * d : 2 * d + 2, i, j], hidden[0])


@torch.no_grad()
def test_torch_cells_run_in_float32_under_autocast():
    layer = SpatialRNN(3, 2, "gru")
    x = torch.randn(1, 3, 3, 4).bfloat16()
    expected = layer(x.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(layer(x.float()), expected)
        assert torch.equal(layer(x), expected.bfloat16())


@pytest.mark.parametrize(("kernel", "reach"), [(3, 2), (5, 4)])
def test_two_convolutions_reach_as_far_as_in_figure_5(kernel, reach):
    block = Conv(1, hidden_dim=4, out_dim=2, kernel_size=kernel)
    for parameter in block.parameters():
        parameter.data.abs_()
    x = torch.ones(1, 1, 13, 13, requires_grad=True)
    (gradient,) = torch.autograd.grad(block(x)[0, :, 6, 6].sum(), x)
    reached = torch.zeros(13, 13, dtype=torch.bool)
    reached[6 - reach : 7 + reach, 6 - reach : 7 + reach] = True
    assert torch.equal(gradient[0, 0] > 0, reached)


def test_global_average_is_the_mean_at_every_cell():
    x = torch.tensor([[[[1.0, 2.0, 50.0], [3.0, 6.0, 50.0]]]])
    assert GlobalAverage(1)(x, torch.tensor([[2, 2]])).tolist() == [[[[3, 3, 0], [3, 3, 0]]]]
    half = torch.full((1, 1, 100, 100), 60.0, dtype=torch.float16)  # the sum exceeds float16
    assert torch.equal(GlobalAverage(1)(half), half)


# ---- joined blocks


@torch.no_grad()
def test_chain_and_branches_are_what_they_are_made_of():
    conv, irnn = Conv(3, hidden_dim=4, out_dim=3), IRNN(3, hidden_dim=4, out_dim=5).eval()
    x, sizes = torch.randn(2, 3, 5, 6), torch.tensor([[5, 4], [3, 6]])
    assert torch.equal(Chain([conv, irnn])(x, sizes), irnn(conv(x, sizes), sizes))
    branches = Branches({"IRNN": irnn, "Conv": conv})
    features = branches(x, sizes)
    assert torch.equal(features["context"], irnn(x, sizes))
    assert torch.equal(features["context_conv"], conv(x, sizes))
    assert (branches.out_channels, branches.extra_channels) == (5, {"context_conv": 3})


@torch.no_grad()
def test_earlier_stacks_are_what_the_next_one_is_fed():
    block = IRNN(3, hidden_dim=4, out_dim=5, num_stacks=3, all_stacks=True).eval()
    x = torch.randn(1, 3, 5, 6)
    features = block(x)
    assert list(features) == ["context", "context1", "context2"]
    assert block.extra_channels == {"context1": 4, "context2": 4}
    fed = block.convs[1](block.irnns[0](block.convs[0](x)))
    assert torch.equal(features["context1"], fed.relu())
    block.extra_channels = {}
    assert torch.equal(block(x), features["context"])


def test_further_features_have_their_shapes():
    opts = ["MODEL.CONTEXT.HIDDEN_DIM", 8, "MODEL.CONTEXT.OUT_DIM", 16, *options("branches")]
    backbone = build_backbone(load_config("configs/ion_tiny.yaml", [str(o) for o in opts]))
    shapes, features = backbone.output_shape(), backbone(torch.randn(1, 3, 64, 96))
    assert set(shapes) == set(features) >= {"context", "context_conv", "context_globalaverage"}
    for name, feature in features.items():
        assert feature.shape[1] == shapes[name].channels
        assert feature.shape[2] == 64 // shapes[name].stride


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (["DIRECTIONS", [["right", "right"]]], "CONTEXT.DIRECTIONS is .*distinct"),
        (["DIRECTIONS", [["north"]]], "CONTEXT.DIRECTIONS is .*'right', 'left', 'down', 'up'"),
        (["DIRECTIONS", ["right", "left"]], "CONTEXT.DIRECTIONS.*one list for each stack"),
        (["DIRECTIONS", []], "CONTEXT.DIRECTIONS"),
        (["DIRECTIONS", [["up"], ["up"], ["up"]]], "at most 2"),
        (["NAME", "RNN", "CELL", "qrnn"], "CONTEXT.CELL is 'qrnn'; use one of .*lstm"),
        (["NAME", "RNN", "NUM_STACKS", 0], "CONTEXT.NUM_STACKS is 0"),
        (["NAME", "Conv", "NUM_STACKS", 0], "CONTEXT.NUM_STACKS is 0"),
        (["NAME", "Conv", "KERNEL_SIZE", 4], "CONTEXT.KERNEL_SIZE is 4; use an odd"),
        (["NAME", "Chain"], r"CONTEXT.PARTS is \[\]; Chain needs"),
        (["NAME", "Chain", "PARTS", ["Conv", "Chain"]], "CONTEXT.PARTS.*other"),
        (["NAME", "Chain", "PARTS", ["Cnov"]], "CONTEXT.PARTS is 'Cnov'.*Conv"),
        (["NAME", "Branches", "PARTS", ["Conv", "Conv"]], "two or more different"),
        (["NAME", "Branches", "PARTS", ["Conv"]], "two or more different"),
    ],
)
def test_bad_settings_name_the_key(opts, words):
    keys = [f"MODEL.CONTEXT.{o}" if i % 2 == 0 else str(o) for i, o in enumerate(opts)]
    with pytest.raises(IONError, match=words) as error:
        build_backbone(load_config("configs/ion_tiny.yaml", keys))
    assert "\n" not in str(error.value)


def test_registered_names():
    for name in ("Branches", "Chain", "Conv", "GlobalAverage", "IRNN", "RNN"):
        assert name in CONTEXT_REGISTRY
