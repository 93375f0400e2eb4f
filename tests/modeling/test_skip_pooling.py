"""Skip pooling in every head: against Detectron2's own heads, and what each head pools."""

import pickle

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import (
    ROI_MASK_HEAD_REGISTRY,
    CascadeROIHeads,
    Res5ROIHeads,
    StandardROIHeads,
)
from detectron2.structures import Boxes, ImageList, Instances, Keypoints, PolygonMasks
from detectron2.utils.events import EventStorage
from model_helpers import small_model

from ion_d2.engine.setup import load_config
from ion_d2.errors import IONError
from ion_d2.modeling import (
    IONCascadeROIHeads,
    IONRes5ROIHeads,
    IONROIHeads,
    SkipPooler,
    SkipPooling,
)

SHAPES = {
    "res3": ShapeSpec(channels=24, stride=8),
    "res4": ShapeSpec(channels=32, stride=16),
    "context": ShapeSpec(channels=8, stride=16),
}
SIZE = (64, 96)
NARROW = [
    "MODEL.DEVICE", "cpu", "MODEL.ROI_HEADS.NUM_CLASSES", 3, "MODEL.SKIP_POOLER.OUT_CHANNELS", 32,
    "MODEL.RESNETS.RES2_OUT_CHANNELS", 8, "MODEL.RESNETS.WIDTH_PER_GROUP", 4,
    "MODEL.ROI_BOX_HEAD.FC_DIM", 32, "MODEL.ROI_MASK_HEAD.CONV_DIM", 16,
    "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", (16,), "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 8,
]  # fmt: skip
ONE_PLAIN_FEATURE = ["MODEL.ROI_HEADS.IN_FEATURES", ["res4"], "MODEL.SKIP_POOLER.NORM", "none"]
HEADS = {
    "mask": (IONROIHeads, StandardROIHeads, "Misc/mask_rcnn_R_50_FPN_1x_cls_agnostic.yaml"),
    "keypoint": (IONROIHeads, StandardROIHeads, "COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml"),
    "cascade": (IONCascadeROIHeads, CascadeROIHeads, "Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml"),
    "c4": (IONRes5ROIHeads, Res5ROIHeads, "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml"),
}


def config(name, *opts):
    return load_config(f"model_zoo:{HEADS[name][2]}", [*NARROW, *opts])


def features():
    generator = torch.Generator().manual_seed(3)
    return {
        name: torch.rand(1, s.channels, SIZE[0] // s.stride, SIZE[1] // s.stride,
                         generator=generator)
        for name, s in SHAPES.items()
    }  # fmt: skip


def proposals():
    boxes = torch.tensor([[4.0, 4, 40, 40], [20, 10, 90, 60], [0, 0, 30, 60]])
    return [Instances(SIZE, proposal_boxes=Boxes(boxes), objectness_logits=torch.zeros(3))]


def targets():
    corners = torch.tensor([[5.0, 6, 41, 39], [22, 8, 88, 60]])
    outlines = [[[b[0], b[1], b[2], b[1], b[2], b[3], b[0], b[3]]] for b in corners.tolist()]
    points = torch.full((2, 17, 3), 30.0)
    points[..., 2] = 2.0
    return [
        Instances(
            SIZE, gt_boxes=Boxes(corners), gt_classes=torch.zeros(2).long(),
            gt_masks=PolygonMasks([[torch.tensor(p[0]).double().numpy()] for p in outlines]),
            gt_keypoints=Keypoints(points),
        )
    ]  # fmt: skip


def losses_of(heads):
    torch.manual_seed(1)
    images = ImageList(torch.zeros(1, 3, *SIZE), [SIZE])
    with EventStorage():
        return heads.train()(images, features(), proposals(), targets())[1]


def detections_of(heads):
    images = ImageList(torch.zeros(1, 3, *SIZE), [SIZE])
    with torch.no_grad():
        return heads.eval()(images, features(), proposals(), None)[0][0]


@pytest.mark.parametrize("name", HEADS)
def test_one_plain_feature_equals_detectron2(name):
    """Same weights, same losses, boxes, masks and keypoints as Detectron2's heads."""
    ours, theirs, _ = HEADS[name]
    cfg = config(name, *ONE_PLAIN_FEATURE, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0)
    heads, plain = ours(cfg, SHAPES), theirs(cfg, SHAPES)
    plain.load_state_dict(heads.state_dict())
    expected, got = losses_of(plain), losses_of(heads)
    assert len(got) > 2 and list(got) == list(expected)
    torch.testing.assert_close(got, expected)
    expected, got = detections_of(plain), detections_of(heads)
    assert len(got) and got.get_fields().keys() == expected.get_fields().keys()
    for key, value in expected.get_fields().items():
        value = value.tensor if isinstance(value, Boxes) else value
        other = got.get(key)
        torch.testing.assert_close(other.tensor if isinstance(other, Boxes) else other, value)


@pytest.mark.parametrize(
    ("name", "poolers"),
    [
        ("mask", {"box_pooler": 7, "mask_pooler": 14}),
        ("keypoint", {"box_pooler": 7, "keypoint_pooler": 14}),
        ("cascade", {"box_pooler": 7, "mask_pooler": 14}),
        ("c4", {"pooler": 14}),
    ],
)
def test_each_head_pools_all_features_at_its_resolution(name, poolers):
    names = ["res3", "context", "res4"]
    heads = HEADS[name][0](config(name, "MODEL.ROI_HEADS.IN_FEATURES", names), SHAPES)
    own = [n for n, _ in heads.named_children() if n.endswith("pooler")]
    assert sorted(own) == sorted(poolers)
    inputs = [features()[n] for n in names]
    for pooler, size in poolers.items():
        pooler = getattr(heads, pooler)
        assert pooler.reduce.weight.shape == (32, 24 + 8 + 32, 1, 1)
        assert pooler(inputs, [proposals()[0].proposal_boxes]).shape == (3, 32, size, size)
        assert pooler.scale_source == 2
    losses = losses_of(heads)
    sum(losses.values()).backward()
    for parameter, value in heads.named_parameters():
        assert value.grad is not None and torch.isfinite(value.grad).all(), parameter


class OwnCascade(SkipPooling, CascadeROIHeads):
    """What docs/PLUG_IN.md offers to heads of one's own."""


@pytest.mark.parametrize("cascade", [IONCascadeROIHeads, OwnCascade])
def test_the_cascade_measures_its_scale_once_a_step(cascade):
    """A second measurement in a step would change the scale under the first stage's gradient."""
    cfg = config("cascade", "MODEL.ROI_HEADS.IN_FEATURES", ["res4"],
                 "MODEL.SKIP_POOLER.SCALE_INIT", 0.0)  # fmt: skip
    heads = cascade(cfg, SHAPES)
    pooled = []
    first = heads.box_pooler.level_poolers[0]
    handle = first.register_forward_hook(lambda *args: pooled.append(args[2]))
    sum(losses_of(heads).values()).backward()
    handle.remove()
    assert len(pooled) == 3  # stages
    scale = heads.box_pooler.scale
    assert int(scale.batches_left) == cfg.MODEL.SKIP_POOLER.SCALE_BATCHES - 1
    expected = pooled[0].flatten(1).norm(dim=1).mean()
    assert float(scale.factor[0]) == pytest.approx(float(expected), rel=1e-5)
    assert all(p.grad is not None for p in heads.parameters())
    copy = pickle.loads(pickle.dumps(heads))
    losses_of(copy)
    assert copy.box_pooler.scale.batches_left == scale.batches_left - 1


def test_two_forward_passes_before_a_backward_one_may_measure():
    """As of two views of a picture, whose losses are added."""
    cfg = config("cascade", "MODEL.ROI_HEADS.IN_FEATURES", ["res4"],
                 "MODEL.SKIP_POOLER.SCALE_INIT", 0.0)  # fmt: skip
    heads = IONCascadeROIHeads(cfg, SHAPES)
    loss = sum(sum(losses_of(heads).values()) for _ in range(2))
    loss.backward()
    assert heads.box_pooler.scale.factor.grad.any()


def test_res5_gets_what_it_reads_whatever_the_config_says():
    cfg = config("c4", "MODEL.ROI_HEADS.IN_FEATURES", ["res3", "res4"],
                 "MODEL.SKIP_POOLER.OUT_CHANNELS", 7)  # fmt: skip
    heads = IONRes5ROIHeads(cfg, SHAPES)
    assert heads.pooler.out_channels == 8 * 4 == heads.res5[0].conv1.in_channels


def test_a_mask_head_over_feature_maps_stays(monkeypatch):
    """Without a pooler type, the mask head reads the features themselves, as PointRend's does."""
    name, seen = "FeatureMapMaskHead", {}
    heads = {name: lambda cfg, shapes: seen.update(shapes)}
    monkeypatch.setattr(ROI_MASK_HEAD_REGISTRY, "_obj_map", heads)
    cfg = config("mask", "MODEL.ROI_MASK_HEAD.POOLER_TYPE", "", "MODEL.ROI_MASK_HEAD.NAME", name,
                 "MODEL.ROI_HEADS.IN_FEATURES", ["res3", "context"])  # fmt: skip
    heads = IONROIHeads(cfg, SHAPES)
    assert heads.mask_pooler is None and list(seen) == ["res3", "context"]


@pytest.mark.parametrize(
    ("name", "opts", "words"),
    [
        ("cascade", ["TEST.BOX_REFINEMENT.ENABLED", True], "TEST.BOX_REFINEMENT.ENABLED is True"),
        ("c4", ["TEST.BOX_REFINEMENT.ENABLED", True], "TEST.BOX_REFINEMENT.ENABLED is True"),
        ("c4", ["MODEL.KEYPOINT_ON", True], "MODEL.KEYPOINT_ON is True.*use 'IONROIHeads'"),
        ("mask", ["MODEL.PROPOSAL_GENERATOR.NAME", "RRPN"], "GENERATOR.NAME is 'RRPN'.*'RPN'"),
        (
            "c4",
            ["MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIAlignRotated"],
            "POOLER_TYPE is 'ROIAlignRotated'",
        ),
        ("mask", ["MODEL.ROI_MASK_HEAD.POOLER_TYPE", "Max"], "ROI_MASK_HEAD.POOLER_TYPE is 'Max'"),
        ("cascade", ["MODEL.ROI_HEADS.IN_FEATURES", ["p9"]], "'p9'.*res3, res4, context"),
        ("c4", ["MODEL.ROI_HEADS.IN_FEATURES", ["res4", "res4"]], "names a feature twice"),
        ("mask", ["MODEL.ROI_HEADS.IN_FEATURES", []], "IN_FEATURES names no feature"),
    ],
)
def test_what_cannot_be_is_one_sentence(name, opts, words):
    cfg = config(name, "MODEL.ROI_HEADS.IN_FEATURES", ["res4"], *opts)
    with pytest.raises(IONError, match=words):
        HEADS[name][0](cfg, SHAPES)


def box_pooler(*opts):
    return small_model(*opts).roi_heads.box_pooler


def test_maps_are_counted():
    pooler = box_pooler()
    with pytest.raises(ValueError, match="4 feature maps wanted, got 1"):
        pooler([torch.zeros(1, 32, 8, 8)], [Boxes(torch.zeros(1, 4))])


def test_context_may_start_without_weight():
    full = box_pooler().reduce.weight
    weak = box_pooler("MODEL.SKIP_POOLER.CONTEXT_GAIN", 0.0).reduce.weight
    width = 16  # of context, the last feature
    assert torch.equal(weak[:, :-width], full[:, :-width])
    assert not weak[:, -width:].any()


@pytest.mark.parametrize("join", ["concat", "residual"])
def test_the_merge_may_start_smaller(join):
    keys = ("MODEL.SKIP_POOLER.CONTEXT", join, "MODEL.CONTEXT.OUT_DIM", 64)
    full = box_pooler(*keys).reduce.weight
    small = box_pooler(*keys, "MODEL.SKIP_POOLER.MERGE_GAIN", 0.25).reduce.weight
    torch.testing.assert_close(small, full / 4)


def test_the_start_of_a_merge_that_does_not_exist_is_refused():
    alone = ("MODEL.ROI_HEADS.IN_FEATURES", ["conv5"], "MODEL.SKIP_POOLER.NORM", "none")
    keys = (*alone, "MODEL.SKIP_POOLER.OUT_CHANNELS", 64)
    keys += ("MODEL.BACKBONE.NAME", "build_ion_vgg_backbone")
    assert box_pooler(*keys).reduce is None
    with pytest.raises(IONError, match="MODEL.SKIP_POOLER.MERGE_GAIN is 0.5"):
        box_pooler(*keys, "MODEL.SKIP_POOLER.MERGE_GAIN", 0.5)


def test_context_may_be_added_to_the_deepest_feature():
    keys = ("MODEL.SKIP_POOLER.CONTEXT", "residual", "MODEL.SKIP_POOLER.CONTEXT_GAIN", 0.25)
    pooler = box_pooler(*keys, "MODEL.CONTEXT.OUT_DIM", 64)
    assert pooler.added == (3,)
    assert pooler.scale_source == 2
    assert pooler.gate.tolist() == [0.25]
    assert pooler.reduce.in_channels == 32 + 64 + 64
    with pytest.raises(IONError, match="CONTEXT is 'residual', but .* names no other feature"):
        box_pooler(*keys, "MODEL.ROI_HEADS.IN_FEATURES", ["context"])
    with pytest.raises(IONError, match="MODEL.SKIP_POOLER.CONTEXT is 'sum'"):
        box_pooler("MODEL.SKIP_POOLER.CONTEXT", "sum")


@pytest.mark.parametrize("norm", ["roi", "none"])
@pytest.mark.parametrize("width", [16, 64])
def test_added_context_of_any_width_counts_by_its_gate(norm, width):
    keys = ("MODEL.SKIP_POOLER.CONTEXT", "residual", "MODEL.SKIP_POOLER.CONTEXT_GAIN", 0.0)
    pooler = box_pooler(*keys, "MODEL.CONTEXT.OUT_DIM", width, "MODEL.SKIP_POOLER.NORM", norm)
    own = 0 if width == 64 else width  # conv5 has 64 channels
    assert pooler.reduce.in_channels == 32 + 64 + 64 + own
    pooled = torch.rand(3, width, 7, 7)
    assert not pooler.contribution(3, pooled).any()
    pooler.gate.data.fill_(0.5)
    half = pooler.contribution(3, pooled)
    half.sum().backward()
    assert pooler.gate.grad.abs() > 0
    pooler.gate.data.fill_(1.0)
    torch.testing.assert_close(pooler.contribution(3, pooled), 2 * half)


def test_an_added_feature_may_be_counted_from_the_end():
    shapes = [ShapeSpec(channels=4, stride=8), ShapeSpec(channels=4, stride=16)]
    pooler = SkipPooler(shapes, scale_source=0, added=[-1], gate_init=0.0)
    assert pooler.added == (1,) and pooler.reduce.in_channels == 4
