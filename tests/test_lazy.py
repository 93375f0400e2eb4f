"""LazyConfig twins build the modules of the YAML configs and give the same losses."""

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling import GeneralizedRCNN, build_model
from detectron2.structures import PolygonMasks
from model_helpers import losses_of, make_input, train_step
from omegaconf import OmegaConf

from ion_d2.engine.setup import load_config
from ion_d2.errors import IONError
from ion_d2.lazy import plug_in_lazy
from ion_d2.modeling.roi_heads.box_predictor import ImageMeanOutputLayers

pytestmark = pytest.mark.slow

TWINS = {
    "ion_vgg16_voc": ("configs/ion_vgg16_voc.yaml", False),
    "ion_vgg16_voc_seg": ("configs/ion_vgg16_voc_seg.yaml", False),
    "mask_rcnn_R_50_FPN": ("configs/plug/mask_rcnn_R_50_FPN.yaml", True),
}


def seeded_losses(model, masks):
    inputs = make_input(64, 96, labels=True, boxes=1)
    if masks:
        square = torch.tensor([8.0, 8, 40, 8, 40, 48, 8, 48]).double().numpy()
        inputs["instances"].gt_masks = PolygonMasks([[square]])
    torch.manual_seed(1)
    return losses_of(model, inputs)


def structure(model):
    """Names and classes of all modules; names, shapes and training of all parameters."""
    modules = [(name, type(module)) for name, module in model.named_modules()]
    parameters = [(n, tuple(p.shape), p.requires_grad) for n, p in model.named_parameters()]
    return modules, parameters


@pytest.mark.parametrize("name", TWINS)
def test_lazy_twin_equals_the_yaml_config(name):
    path, masks = TWINS[name]
    opts = ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.ROI_BOX_HEAD.FC_DIM", "64"]
    torch.manual_seed(0)
    yaml_model = build_model(load_config(path, opts))
    cfg = LazyConfig.load(f"configs/lazy/{name}.py")
    if masks:
        cfg.model.roi_heads.box_head.fc_dims = [64, 64]
        cfg.model.roi_heads.box_predictor.input_shape = ShapeSpec(channels=64)
    else:
        cfg.model.roi_heads.box_head.fc_dim = 64
    lazy_model = instantiate(cfg.model)
    assert structure(lazy_model) == structure(yaml_model)
    lazy_model.load_state_dict(yaml_model.state_dict())
    expected, got = seeded_losses(yaml_model, masks), seeded_losses(lazy_model, masks)
    assert list(got) == list(expected) and ("loss_mask" in got) == masks
    assert ("loss_sem_seg" in got) == name.endswith("seg")
    for key, value in expected.items():
        assert torch.equal(value, got[key]) and value > 0, key
    with torch.no_grad():
        expected, got = (
            model.eval()([make_input(64, 96)])[0]["instances"] for model in (yaml_model, lazy_model)
        )
    assert torch.equal(got.scores, expected.scores)
    assert torch.equal(got.pred_boxes.tensor, expected.pred_boxes.tensor)


class OwnRCNN(GeneralizedRCNN):
    pass


def zoo_model(name):
    from detectron2 import model_zoo

    return model_zoo.get_config(name).model


def test_context_of_another_level_and_other_settings():
    model = zoo_model("COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.py")
    plug_in_lazy(
        model,
        in_feature="p3",
        context={"hidden_dim": 8, "out_dim": 24},
        pooler={"norm": "none", "added": ()},
    )
    detector = instantiate(model)
    assert detector.backbone.output_shape()["context"].stride == 8
    for pooler, size in (("box_pooler", 7), ("keypoint_pooler", 14)):
        pooler = getattr(detector.roi_heads, pooler)
        assert pooler.reduce.in_channels == 4 * 256 + 24 and pooler.scale is None
        levels = [p.level_poolers[0] for p in pooler.level_poolers]
        assert [1 / level.spatial_scale for level in levels] == [4, 8, 16, 32, 8]
        assert levels[0].output_size == (size, size)


@pytest.mark.parametrize("one", ["res4", "res5"])
def test_heads_of_one_stage_pool_those_before_it_too(one):
    """As plug_in does; the RPN keeps the stage that it reads."""
    model = zoo_model("COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.py")
    model.backbone = model.backbone.bottom_up
    model.backbone.out_features = sorted({"res4", one})  # the RPN reads res4
    rpn, heads = model.proposal_generator, model.roi_heads
    rpn.in_features, rpn.head.in_channels = ["res4"], 1024
    rpn.anchor_generator.update(sizes=[[32]], strides=[16])
    for key in [key for key in heads if key.startswith("keypoint")]:
        del heads[key]
    heads.box_in_features = [one]
    channels = 1024 if one == "res4" else 2048
    heads.box_head.input_shape = ShapeSpec(channels=channels, height=7, width=7)
    plug_in_lazy(model, context={"hidden_dim": 16, "out_dim": 16}, pooler={"added": ()})
    stages = [f"res{i}" for i in range(2, int(one[3:]) + 1)]
    assert model.roi_heads.box_in_features == [*stages, "context"]
    train_step(instantiate(model), make_input(64, 96, boxes=1))


def test_a_saved_model_without_masks_plugs_in(tmp_path):
    """Its classes are strings, and what is off is None."""
    cfg = OmegaConf.create({"model": zoo_model("COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.py")})
    for name in ("in_features", "pooler", "head"):
        cfg.model.roi_heads[f"mask_{name}"] = None
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    model = LazyConfig.load(str(tmp_path / "config.yaml")).model
    model.roi_heads.box_in_features = ["p5", "p4", "p3", "p2"]
    plug_in_lazy(model)
    assert model.backbone.in_feature == "p5" and model.roi_heads.box_pooler.scale_source == 0
    assert model.roi_heads.mask_pooler is None
    train = instantiate(model)
    assert type(train.roi_heads.box_predictor) is ImageMeanOutputLayers


def test_what_is_refused_leaves_the_model_as_it_was():
    model = zoo_model("COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.py")
    before = OmegaConf.to_container(model)
    with pytest.raises(IONError, match="in_feature names 'res9'.*returns only p2, p3, p4, p5, p6"):
        plug_in_lazy(model, in_feature="res9")
    assert OmegaConf.to_container(model) == before
    plug_in_lazy(model, pooler={"output_size": 5})
    assert instantiate(model).roi_heads.box_pooler.level_poolers[0].output_size == (5, 5)
    model = zoo_model("COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.py")
    model._target_ = OwnRCNN
    with pytest.raises(IONError, match="model is OwnRCNN, whose own work would be lost"):
        plug_in_lazy(model)
    with pytest.raises(IONError, match="model.roi_heads is None.*StandardROIHeads"):
        plug_in_lazy(zoo_model("COCO-Detection/retinanet_R_50_FPN_1x.py"))


def small_vit(model):
    model.backbone.net.update(
        img_size=128, embed_dim=32, depth=2, num_heads=2, drop_path_rate=0.0, window_size=4,
        window_block_indexes=[0],
    )  # fmt: skip
    model.backbone.square_pad = 128


def small_swin(model):
    from detectron2.config import LazyCall
    from detectron2.modeling import SwinTransformer

    model.backbone.bottom_up = LazyCall(SwinTransformer)(
        depths=[2, 2, 2, 2], embed_dim=24, num_heads=[1, 2, 4, 8], drop_path_rate=0.0
    )
    model.backbone.in_features = ("p0", "p1", "p2", "p3")


@pytest.mark.parametrize(
    ("base", "shrink"),
    [
        ("common/models/mask_rcnn_vitdet.py", small_vit),
        ("common/models/cascade_rcnn.py", small_swin),
    ],
    ids=["vitdet", "swin"],
)
def test_transformer_backbones_train(base, shrink):
    """Every parameter receives a gradient; ViT and Swin are in Detectron2's main branch only."""
    pytest.importorskip("detectron2.modeling.backbone.vit", reason="this Detectron2 has no ViT")
    pytest.importorskip("timm", reason="Detectron2's ViT and Swin need timm")
    torch.manual_seed(0)
    model = zoo_model(base)
    shrink(model)
    model.proposal_generator.post_nms_topk = (50, 20)
    model.roi_heads.batch_size_per_image = 8
    plug_in_lazy(model, context={"hidden_dim": 16}, pooler={"gate_init": 0.25})
    detector = instantiate(model)
    sum(seeded_losses(detector, masks=True).values()).backward()
    for name, parameter in detector.named_parameters():
        assert not parameter.requires_grad or parameter.grad is not None, name
    assert detector.backbone.context.convs[0].weight.grad.abs().sum() > 0
    with torch.no_grad():
        assert detector.eval()([make_input(64, 96)])[0]["instances"].has("pred_masks")
