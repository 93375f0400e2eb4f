"""Every context block in a model: exact padding, joined blocks, settings that are refused."""

import pytest
import torch
from context_cases import VARIANTS, make_block, options, outputs
from detectron2.config import configurable
from detectron2.modeling import build_backbone
from model_helpers import make_input, small_model, train_step

from ion_d2.engine.setup import load_config
from ion_d2.errors import IONError
from ion_d2.modeling.context import IRNN, Branches, Chain, Conv

pytestmark = pytest.mark.slow


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


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_a_trace_serves_maps_of_any_size(variant):
    block = make_block(variant).double().requires_grad_(False)

    def features(x):
        return tuple(outputs(block, x).values())

    trace = torch.jit.trace(features, torch.randn(1, 3, 5, 4, dtype=torch.float64))
    for shape in ((1, 3, 5, 4), (1, 3, 9, 2), (1, 3, 3, 11)):
        x = torch.randn(shape, dtype=torch.float64)
        torch.testing.assert_close(trace(x), features(x))


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
    features += ["context1"] * ("both_stacks" in variant)
    features += ["context_conv", "context_globalaverage"] * (variant == "branches")
    features += ["context_irnn"] * (variant == "branches_both_stacks")
    opts = [*options(variant), "MODEL.ROI_HEADS.IN_FEATURES", features]
    model = small_model(*opts)
    assert model.roi_heads.box_pooler.scale_source == 0
    assert all(parameter.requires_grad for parameter in model.parameters())
    train_step(model, make_input(64, 96), make_input(80, 64, seed=1))


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


@pytest.mark.parametrize("variant", VARIANTS)
def test_names_are_none_that_recipes_of_vit_take_for_its_own(variant):
    """Detectron2's learning rate by layers goes by these, below the whole backbone."""
    names = [f"backbone.context.{name}" for name, _ in make_block(variant).named_parameters()]
    assert not [n for n in names for own in (".blocks.", ".pos_embed", ".patch_embed") if own in n]


@pytest.mark.parametrize("variant", ["chain", "branches"])
def test_earlier_names_of_the_parts_are_loaded(variant):
    block, other = make_block(variant, seed=0), make_block(variant, seed=1)
    state = {key.replace("parts.", "blocks.", 1): v for key, v in block.state_dict().items()}
    assert not state.keys() & block.state_dict().keys()
    other.load_state_dict(state)
    assert all(map(torch.equal, other.state_dict().values(), block.state_dict().values()))


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
    names = ["context", "context_conv", "context_globalaverage"]
    opts = ["MODEL.CONTEXT.HIDDEN_DIM", 8, "MODEL.CONTEXT.OUT_DIM", 16, *options("branches")]
    opts += ["MODEL.ROI_HEADS.IN_FEATURES", names]
    backbone = build_backbone(load_config("configs/ion_tiny.yaml", [str(o) for o in opts]))
    shapes, features = backbone.output_shape(), backbone(torch.randn(1, 3, 64, 96))
    assert set(shapes) == set(features) >= set(names)
    for name, feature in features.items():
        assert feature.shape[1] == shapes[name].channels
        assert feature.shape[2] == 64 // shapes[name].stride


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (["NAME", "LSTM9"], "CONTEXT.NAME is 'LSTM9'.*IRNN"),
        (["IN_FEATURE", "conv9"], "CONTEXT.IN_FEATURE.*conv3, conv4, conv5"),
        (["BOTTOM_UP", "build_nothing"], "CONTEXT.BOTTOM_UP"),
        (["TRANSITION", "cubic"], "CONTEXT.TRANSITION"),
        (["INIT", "ones"], "CONTEXT.INIT is 'ones'"),
        (["NUM_STACKS", 0], "CONTEXT.NUM_STACKS"),
        (["DIRECTIONS", [["right", "right"]]], "CONTEXT.DIRECTIONS is .*distinct"),
        (["DIRECTIONS", [["north"]]], "CONTEXT.DIRECTIONS is .*'right', 'left', 'down', 'up'"),
        (["DIRECTIONS", ["right", "left"]], "CONTEXT.DIRECTIONS.*one list for each stack"),
        (["DIRECTIONS", []], "CONTEXT.DIRECTIONS"),
        (["DIRECTIONS", [["up"], ["up"], ["up"]]], "at most 2"),
        (["NAME", "RNN", "CELL", "qrnn"], "CONTEXT.CELL is 'qrnn'.*lstm"),
        (["NAME", "RNN", "NUM_STACKS", 0], "CONTEXT.NUM_STACKS is 0"),
        (["NAME", "Conv", "NUM_STACKS", 0], "CONTEXT.NUM_STACKS is 0"),
        (["NAME", "Conv", "KERNEL_SIZE", 4], "CONTEXT.KERNEL_SIZE is 4.*odd"),
        (["NAME", "Chain"], r"CONTEXT.PARTS is \[\]; Chain needs"),
        (["NAME", "Chain", "PARTS", ["Conv", "Chain"]], "CONTEXT.PARTS.*other"),
        (["NAME", "Chain", "PARTS", ["Cnov"]], "CONTEXT.PARTS is 'Cnov'.*Conv"),
        (["NAME", "Branches", "PARTS", ["Conv", "Conv"]], "two or more different"),
        (["NAME", "Branches", "PARTS", ["Conv"]], "two or more different"),
    ],
)
def test_bad_settings_name_the_key(opts, words):
    keys = [f"MODEL.CONTEXT.{o}" if i % 2 == 0 else str(o) for i, o in enumerate(opts)]
    with pytest.raises(IONError, match=words):
        build_backbone(load_config("configs/ion_tiny.yaml", keys))


def test_a_block_reads_its_own_settings_and_those_of_its_base():
    class Wider(IRNN):
        @configurable
        def __init__(self, in_channels, *, kernel_size, unknown=7, **kwargs):
            super().__init__(in_channels, **kwargs)
            self.read = kernel_size, unknown

    opts = ["MODEL.CONTEXT.KERNEL_SIZE", "5", "MODEL.CONTEXT.OUT_DIM", "6"]
    block = Wider(load_config("configs/ion_tiny.yaml", opts), 3)
    assert (block.read, block.out_channels) == ((5, 7), 6)
