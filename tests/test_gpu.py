"""On a GPU the models do what they do on the CPU; skipped where there is none."""

import copy

import pytest
import torch
from detectron2.modeling import build_model
from model_helpers import EXACT, losses_of, make_input, small_config, suppress_in_float64

from ion_d2.layers.roi_max_pool import ROIMaxPool

TINY, VOC = "configs/ion_tiny.yaml", "configs/ion_vgg16_voc.yaml"
TRANSITION, BRN = "MODEL.CONTEXT.TRANSITION", ("MODEL.VGG.NORM", "BRN", "MODEL.CONTEXT.NORM", "BRN")
# torchvision's max pooling of ROIs takes boxes of the map's type only, and boxes are never float64.
ALIGN = ("MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIAlignV2")
MODELS = {
    "tiny": (TINY, ()),
    "tiny, batch renormalization": (TINY, BRN),
    "VOC, full": (VOC, ALIGN),
    "VOC, diagonal": (VOC, (*ALIGN, TRANSITION, "diagonal")),
    "VOC, running maximum": (VOC, (*ALIGN, TRANSITION, "max")),
}

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.fixture
def double(monkeypatch):
    suppress_in_float64(monkeypatch)


def make(name, *opts):
    config_file, more = MODELS[name]
    torch.manual_seed(0)
    return build_model(small_config(*EXACT, *more, *opts, config_file=config_file))


INPUTS = [make_input(64, 96, labels=True, boxes=2, seed=seed) for seed in range(2)]


def gradients(model):
    losses = losses_of(model, *INPUTS)
    sum(losses.values()).backward()
    found = {name: p.grad.cpu() for name, p in model.named_parameters() if p.grad is not None}
    return {name: loss.item() for name, loss in losses.items()}, found


@pytest.mark.parametrize("name", MODELS)
def test_losses_and_gradients_equal_the_cpus(double, name):
    on_cpu = make(name).double().train()
    on_gpu = copy.deepcopy(on_cpu).cuda()
    losses, expected = gradients(on_cpu)
    found_losses, found = gradients(on_gpu)
    # Detectron2 computes two of the losses in float32.
    assert found_losses == pytest.approx(losses, rel=1e-5)
    assert found.keys() == expected.keys() and len(found) > 20
    scale = max(gradient.abs().max() for gradient in expected.values())
    for key, gradient in expected.items():
        assert (found[key] - gradient).abs().max() < 1e-6 * scale, key


@pytest.mark.parametrize("name", MODELS)
def test_detections_equal_the_cpus(double, name):
    on_cpu = make(name, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0).double().eval()
    on_gpu = copy.deepcopy(on_cpu).cuda()
    with torch.no_grad():
        results = [model([make_input()])[0]["instances"].to("cpu") for model in (on_cpu, on_gpu)]
    expected, found = results
    assert len(found) == len(expected) > 0
    assert torch.equal(found.pred_classes, expected.pred_classes)
    torch.testing.assert_close(found.scores, expected.scores, rtol=1e-6, atol=0)
    torch.testing.assert_close(found.pred_boxes.tensor, expected.pred_boxes.tensor)


@pytest.mark.parametrize("name", MODELS)
def test_mixed_precision_stays_near(name):
    model = make(name).cuda().train()
    with torch.no_grad():
        expected = losses_of(model, *INPUTS)
        with torch.autocast("cuda"):
            found = losses_of(model, *INPUTS)
    for key, loss in expected.items():
        assert found[key].item() == pytest.approx(loss.item(), rel=0.05), key


@pytest.mark.parametrize("differentiable", [False, True])
def test_max_pooling_of_rois_equals_the_cpus(differentiable):
    torch.manual_seed(0)
    x = torch.randn(2, 5, 30, 40, requires_grad=differentiable)
    corners = torch.rand(50, 2) * 200
    boxes = torch.cat([corners, corners + torch.rand(50, 2) * 120], dim=1)
    rois = torch.cat([torch.arange(50.0)[:, None] % 2, boxes], dim=1)
    expected = ROIMaxPool((7, 7), 1 / 8)(x, rois)
    found = ROIMaxPool((7, 7), 1 / 8)(x.cuda(), rois.cuda())
    assert torch.equal(found.cpu(), expected)


def test_trained_in_mixed_precision_then_evaluated_on_the_cpu(train_net, scenes, tmp_path):
    data = [
        *("DATASETS.TRAIN", f"('voc:{scenes}:trainval',)"),
        *("DATASETS.TEST", f"('voc:{scenes}:test',)"),
        *("OUTPUT_DIR", tmp_path, "INPUT.MIN_SIZE_TRAIN", "(128,)", "INPUT.MIN_SIZE_TEST", 128),
    ]
    amp = ("MODEL.DEVICE", "cuda", "SOLVER.AMP.ENABLED", True, "SOLVER.MAX_ITER", 4)
    status, out, err = train_net("--config-file", TINY, *data, *amp)
    assert not status, out + err
    weights = ("MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", tmp_path / "model_final.pth")
    status, out, err = train_net("--config-file", TINY, "--eval-only", *data, *weights)
    assert not status, out + err
    assert "AP50" in out
