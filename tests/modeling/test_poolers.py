"""Skip pooling against torchvision's operators and hand-made references."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes

from ion_d2.engine.checkpoint import IONCheckpointer
from ion_d2.errors import IONError
from ion_d2.modeling.roi_heads.skip_pooler import SkipPooler

SHAPES = [ShapeSpec(channels=3, stride=4), ShapeSpec(channels=5, stride=16)]


@pytest.fixture
def inputs():
    torch.manual_seed(0)
    features = [torch.rand(2, 3, 24, 32), torch.rand(2, 5, 6, 8)]
    boxes = [
        Boxes(torch.tensor([[3.0, 5, 60, 70], [10, 10, 22, 19], [0, 0, 128, 96]])),
        Boxes(torch.tensor([[40.0, 2, 90, 93]])),
    ]
    return features, boxes


def pool_one(x, boxes, kind, stride):
    rois = [b.tensor for b in boxes]
    if kind == "ROIPool":
        return torchvision.ops.roi_pool(x, rois, 7, 1 / stride)
    return torchvision.ops.roi_align(x, rois, 7, 1 / stride, 2, kind == "ROIAlignV2")


def torchvision_pool(features, boxes, kind):
    return [pool_one(x, boxes, kind, s.stride) for x, s in zip(features, SHAPES)]


@pytest.mark.parametrize("kind", ["ROIPool", "ROIAlign", "ROIAlignV2"])
@pytest.mark.parametrize("norm", ["roi", "position", "none"])
def test_equals_the_paper_step_by_step(inputs, kind, norm):
    features, boxes = inputs
    pooler = SkipPooler(
        SHAPES, pooler_type=kind, sampling_ratio=2, norm=norm, scale_init=20.0, out_channels=6
    )
    given = [*pooler.reduce.parameters(), *(x.requires_grad_() for x in features)]
    pooled = torchvision_pool(features, boxes, kind)
    if norm == "roi":
        pooled = [x / x.flatten(1).norm(dim=1)[:, None, None, None] * 20 for x in pooled]
    elif norm == "position":
        # ROIPool leaves bins empty that no cell falls into; they stay 0.
        pooled = [x / x.norm(dim=1, keepdim=True).clamp(min=1e-9) * 20 for x in pooled]
    expected = F.conv2d(torch.cat(pooled, 1), pooler.reduce.weight, pooler.reduce.bias)
    got = pooler(features, boxes)
    assert got.shape == (4, 6, 7, 7)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    cotangent = torch.linspace(-1, 1, got.numel()).view_as(got)
    gradients = (torch.autograd.grad(y, given, cotangent) for y in (got, expected))
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["ROIPool", "ROIAlignV2"])
def test_strides_need_not_be_powers_of_two(inputs, kind):
    """A ViT's patches are 14 pixels wide; Detectron2's pooler refuses them."""
    features, boxes = inputs
    shapes = [ShapeSpec(channels=5, stride=14)]
    pooler = SkipPooler(shapes, norm="none", out_channels=5, pooler_type=kind, sampling_ratio=2)
    expected = pool_one(features[1], boxes, kind, 14)
    torch.testing.assert_close(pooler(features[1:], boxes), expected)


def test_no_boxes_and_no_images(inputs):
    features, _ = inputs
    pooler = SkipPooler(SHAPES, out_channels=6)
    empty = [Boxes(torch.zeros(0, 4)), Boxes(torch.zeros(0, 4))]
    out = pooler(features, empty)
    assert out.shape == (0, 6, 7, 7)
    out.sum().backward()
    assert all(p.grad is not None for p in pooler.parameters())
    assert pooler([x[:0] for x in features], []).shape == (0, 6, 7, 7)


def test_scale_is_measured_on_the_first_batches_and_then_learned(inputs, caplog):
    features, boxes = inputs
    pooler = SkipPooler(SHAPES, scale_init=0.0, scale_batches=2, out_channels=6)
    norms = torchvision_pool(features, boxes, "ROIPool")[1].flatten(1).norm(dim=1)
    with caplog.at_level("INFO", logger="ion_d2"):
        pooler([x * 3 for x in features], boxes)
        torch.testing.assert_close(pooler.scale.factor, torch.full((8,), 3 * norms.mean().item()))
        pooler(features, boxes)
    torch.testing.assert_close(pooler.scale.factor, torch.full((8,), 2 * norms.mean().item()))
    assert sum("scale starts at" in r.message for r in caplog.records) == 1
    before = pooler.scale.factor.clone()
    pooler([x * 100 for x in features], boxes)
    assert torch.equal(pooler.scale.factor, before)
    assert pooler.scale.factor.requires_grad


def test_a_checkpoint_of_other_features_is_no_measurement(inputs, tmp_path):
    features, boxes = inputs
    one = SkipPooler(SHAPES[1:], scale_init=0.0, scale_batches=1, out_channels=6)
    one(features[1:], boxes)
    IONCheckpointer(one, str(tmp_path)).save("one")
    two = SkipPooler(SHAPES, scale_init=0.0, scale_batches=1, out_channels=6)
    IONCheckpointer(two).load(str(tmp_path / "one.pth"))
    two(features, boxes)
    # Both measure the deepest feature, so that the scales are the same.
    assert torch.equal(two.scale.factor, one.scale.factor[:1].expand(8))
    assert one.scale.factor[0] != 1


def test_measurement_survives_a_checkpoint(inputs):
    features, boxes = inputs
    whole, first, second, trained = (
        SkipPooler(SHAPES, scale_init=0.0, scale_batches=3, out_channels=6) for _ in range(4)
    )
    batches = [[x * k for x in features] for k in (1, 2, 5, 9)]
    for batch in batches:
        whole(batch, boxes)
    for batch in batches[:2]:
        first(batch, boxes)
    second.load_state_dict(first.state_dict())
    for batch in batches[2:]:
        second(batch, boxes)
    assert torch.equal(whole.scale.factor, second.scale.factor)
    trained.load_state_dict(whole.state_dict())
    trained(batches[3], boxes)
    assert torch.equal(trained.scale.factor, whole.scale.factor)


def test_neither_evaluation_nor_batches_without_boxes_are_measured(inputs):
    features, boxes = inputs
    pooler = SkipPooler(SHAPES, scale_init=0.0, out_channels=6).eval()
    pooler(features, boxes)
    pooler.train()(features, [Boxes(torch.zeros(0, 4))] * 2)
    assert (pooler.scale.factor == 1).all() and pooler.scale.batches_left == 8


def test_a_whole_number_is_a_scale_too():
    assert SkipPooler(SHAPES, scale_init=130).scale.factor.tolist() == [130.0] * 8


def test_fixed_scale_gets_no_gradient(inputs):
    features, boxes = inputs
    pooler = SkipPooler(SHAPES, learn_scale=False, out_channels=6)
    pooler(features, boxes).sum().backward()
    assert pooler.scale.factor.grad is None and pooler.reduce.weight.grad is not None


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"norm": "batch"}, "MODEL.SKIP_POOLER.NORM is 'batch'"),
        ({"input_shapes": []}, "MODEL.ROI_HEADS.IN_FEATURES is empty"),
        ({"pooler_type": "ROIAlignRotated"}, "POOLER_TYPE is 'ROIAlignRotated'.*ROIPool"),
    ],
)
def test_bad_settings_name_the_key(kwargs, words):
    with pytest.raises(IONError, match=words):
        SkipPooler(**{"input_shapes": SHAPES, **kwargs})


@pytest.mark.parametrize("gate", [0.5, 0.0])
def test_added_features_equal_their_formula(inputs, gate):
    features, boxes = inputs
    shapes = [SHAPES[0], SHAPES[-1], SHAPES[-1]]
    features = [features[0], features[-1], features[-1].flip(0)]
    settings = {"scale_source": 1, "added": [2], "gate_init": gate}
    pooler = SkipPooler(shapes, output_size=3, out_channels=8, **settings)
    pooler.scale.factor.data.uniform_(1, 2)
    pooled = (p([x], boxes) for p, x in zip(pooler.level_poolers, features))
    first, deep, more = (x / x.flatten(1).norm(dim=1)[:, None, None, None] for x in pooled)
    factors = pooler.scale.factor[:, None, None].split([shapes[0].channels, shapes[1].channels])
    merged = torch.cat([first * factors[0], (deep + gate * more) * factors[1]], dim=1)
    found = pooler(features, boxes)
    torch.testing.assert_close(found, pooler.reduce(merged))
    found.sum().backward()
    assert pooler.gate.grad.abs() > 0


def maps_of(size):
    return [torch.randn(1, s.channels, size // s.stride, size // s.stride) for s in SHAPES]


def pooler_of(kind):
    torch.manual_seed(0)
    return SkipPooler(SHAPES, output_size=3, sampling_ratio=1, pooler_type=kind, scale_init=5.0,
                      out_channels=8)  # fmt: skip


@pytest.mark.parametrize("kind", ["ROIPool", "ROIAlignV2"])
def test_a_compiled_pooler_has_the_same_gradients(kind):
    pooler = pooler_of(kind)
    maps = [each.requires_grad_() for each in maps_of(64)]
    boxes = [Boxes(torch.tensor([[3.0, 4, 40, 50], [10, 10, 30, 60]]))]
    given = [*pooler.parameters(), *maps]
    expected, got = (
        torch.autograd.grad(run(maps, boxes).square().sum(), given)
        for run in (pooler, torch.compile(pooler, backend="eager"))
    )
    assert all(grad.any() for grad in expected)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("kind", ["ROIPool", "ROIAlignV2"])
def test_a_traced_pooler_takes_any_number_of_boxes(kind):
    class Alone(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.pooler = pooler_of(kind)

        def forward(self, first, second, boxes):
            return self.pooler([first, second], [Boxes(boxes)])

    def given(count, size):
        corners = torch.rand(count, 2, 2).sort(dim=1).values.flatten(1)
        return (*maps_of(size), corners * size)

    alone = Alone().eval()
    with torch.no_grad():
        trace = torch.jit.trace(alone, given(4, 64), check_trace=False)
        for count, size in ((11, 96), (0, 64)):
            maps_and_boxes = given(count, size)
            torch.testing.assert_close(trace(*maps_and_boxes), alone(*maps_and_boxes))
