"""The segmentation head: geometry, bilinear start, and a loss that is safe without labels."""

import pytest
import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from model_helpers import losses_of, make_input, small_config, small_model

from ion_d2.errors import IONError
from ion_d2.modeling.backbone.vgg import ImageFeatures
from ion_d2.modeling.seg_head import IONSegHead


def make(stride=16, channels=6, num_classes=3, **kwargs):
    shapes = {"context": ShapeSpec(channels=channels, stride=stride)}
    settings = {"normalize_input": False, **kwargs}
    return IONSegHead(shapes, num_classes=num_classes, **settings)


def test_size_of_the_paper():
    head = make(channels=512, num_classes=21)
    # 32x32 kernels from 512 channels to 21 classes (paper Fig. 2).
    assert head.deconv.weight.numel() == 512 * 21 * 32 * 32
    assert head.eval()({"context": torch.zeros(1, 512, 3, 4)})[0].shape == (1, 21, 48, 64)


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 8, 16])
def test_starts_as_bilinear_interpolation_of_class_scores(stride):
    torch.manual_seed(0)
    head = make(stride=stride)
    x = torch.randn(2, 6, 5, 7)
    got, _ = head.eval()({"context": x})
    center = (head.deconv.kernel_size[0] - 1) // 2
    peak = (1 - 0.5 / stride) ** 2 if stride % 2 == 0 else 1.0
    scores = head.deconv.weight[:, :, center, center] / peak
    expected = F.interpolate(
        torch.einsum("nchw,ck->nkhw", x, scores), scale_factor=stride, mode="bilinear"
    )
    inside = slice(stride, -stride)
    torch.testing.assert_close(
        got[..., inside, inside], expected[..., inside, inside], rtol=1e-4, atol=1e-5
    )


def test_the_scores_may_start_smaller():
    x = {"context": torch.randn(1, 6, 2, 3)}
    # Scores of 0 are where all classes are equally likely, and the loss is ln 3.
    _, loss = make(init_gain=0.0)(x, torch.zeros(1, 32, 48, dtype=torch.int64))
    assert loss["loss_sem_seg"].item() == pytest.approx(1.0986, abs=1e-4)
    heads = []
    for overrides in ([], ["MODEL.SEM_SEG_HEAD.INIT_GAIN", 0.5]):
        cfg = small_config("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 4, *overrides)
        torch.manual_seed(0)
        heads.append(IONSegHead(cfg, {"context": ShapeSpec(channels=6, stride=16)}))
    torch.testing.assert_close(heads[1].deconv.weight, 0.5 * heads[0].deconv.weight)


@pytest.mark.parametrize("size", [(48, 64), (50, 79), (41, 64), (63, 70)])
def test_output_has_the_images_size(size):
    head = make()
    x = torch.randn(1, 6, size[0] // 16, size[1] // 16)
    features = ImageFeatures(size)
    features["context"] = x
    out, _ = head.eval()(features)
    assert out.shape[-2:] == size
    rows, columns = x.shape[2] * 16, x.shape[3] * 16
    assert (out[..., rows:, :] == out[..., rows - 1 : rows, :]).all()
    assert (out[..., columns:] == out[..., columns - 1 : columns]).all()


def test_loss_is_the_mean_over_images_of_the_mean_over_labeled_pixels():
    torch.manual_seed(1)
    head = make(loss_weight=2.0)
    features = {"context": torch.randn(3, 6, 2, 3)}
    targets = torch.full((3, 32, 48), 255)
    targets[0, 3, 4], targets[1, 20:, 40] = 2, 0
    logs = head.layers(features).detach().log_softmax(dim=1)
    expected = -(logs[0, 2, 3, 4] + logs[1, 0, 20:, 40].mean() + 0) / 3
    loss = head(features, targets)[1]["loss_sem_seg"]
    assert loss.item() == pytest.approx(2 * expected.item(), rel=1e-5)


def test_normalized_input_makes_the_amplitude_of_a_cell_irrelevant():
    torch.manual_seed(2)
    head, plain = make(normalize_input=True), make()
    plain.load_state_dict(head.state_dict())
    x = torch.randn(2, 6, 3, 4)
    unit = x / x.pow(2).mean(dim=1, keepdim=True).sqrt()
    scaled = x * torch.rand(2, 1, 3, 4).add(0.1).mul(1000)
    expected = plain.layers({"context": unit})
    torch.testing.assert_close(head.layers({"context": scaled}), expected, rtol=1e-4, atol=1e-4)


def test_no_labels_give_zero_loss_and_zero_gradients():
    head = make()
    features = {"context": torch.randn(1, 6, 2, 3, requires_grad=True)}
    loss = head(features, torch.full((1, 32, 48), 255))[1]["loss_sem_seg"]
    loss.backward()
    assert loss.item() == 0
    # What it reads as well: a context that nothing else reads must not be without a gradient.
    for each in (*head.parameters(), features["context"]):
        assert each.grad is not None and (each.grad == 0).all()


@pytest.mark.parametrize(
    ("key", "value"), [("in_feature", "p2"), ("num_classes", 1), ("init_gain", -1.0)]
)
def test_bad_settings_name_the_key(key, value):
    with pytest.raises(IONError, match=f"MODEL.SEM_SEG_HEAD.{key.upper()}.*{value}"):
        make(**{key: value})


@pytest.mark.parametrize("label", [3, -1, 254])
def test_labels_that_are_no_class_are_refused(label):
    with pytest.raises(IONError, match=f"label is {label}, but .*NUM_CLASSES is 3"):
        make()({"context": torch.randn(1, 6, 2, 3)}, torch.full((1, 32, 48), label))


@pytest.mark.parametrize("name", ["SemanticSegmentor", "PanopticFPN", "ION"])
@pytest.mark.parametrize("size", [(64, 96), (77, 101)])
def test_every_meta_architecture_trains_and_predicts(name, size):
    opts = ("MODEL.META_ARCHITECTURE", name, "MODEL.SEG_REGULARIZER_ON", name == "ION")
    model = small_model(*opts, "TEST.SEM_SEG", name == "ION")
    losses = losses_of(model, make_input(*size, labels=True))
    assert losses["loss_sem_seg"].isfinite()
    if name == "PanopticFPN":  # its predictions need masks, see below
        return
    with torch.no_grad():
        assert model.eval()([make_input(*size)])[0]["sem_seg"].shape == (4, *size)


def test_panoptic_predictions_hold_the_segmentation():
    opts = ("MODEL.META_ARCHITECTURE", "PanopticFPN", "MODEL.MASK_ON", True)
    model = small_model(*opts, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0).eval()
    with torch.no_grad():
        output = model([{**make_input(64, 96), "height": 32, "width": 48}])[0]
    assert output["sem_seg"].shape == (4, 32, 48)
    assert output["instances"].pred_masks.shape[1:] == (32, 48)
    assert output["panoptic_seg"][0].shape == (32, 48)
