"""The whole ION model: context without padding, losses, gradients and odd batches."""

import pytest
import torch
from model_helpers import losses_of, make_input, small_model, train_step
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

SEG = ("MODEL.SEG_REGULARIZER_ON", True)


def train_losses(model, inputs):
    torch.manual_seed(0)
    return losses_of(model, *inputs)


def test_parameter_names_of_the_contract():
    assert "sem_seg_head.deconv.weight" in small_model(*SEG).state_dict()
    baseline = small_model(config_file="configs/faster_rcnn_tiny.yaml").state_dict()
    assert not any("context" in name for name in baseline)


@pytest.mark.parametrize("transition", ["identity", "full"])
def test_context_depends_on_neither_padding_nor_batch_mates(transition):
    """Through the whole model: the same conv5 in the valid area gives the same context."""
    model = small_model("MODEL.CONTEXT.TRANSITION", transition).eval()
    seen = []
    model.backbone.context.register_forward_hook(lambda m, i, o: seen.append((i[0], o)))
    small, large = make_input(70, 90), make_input(100, 130, seed=1)
    with torch.no_grad():
        model([small, large])
    source, batched = seen[0]
    for n, x in enumerate((small, large)):
        rows, columns = x["height"] // 16, x["width"] // 16
        with torch.no_grad():
            alone = model.backbone.context(source[n : n + 1, :, :rows, :columns])
        torch.testing.assert_close(batched[n, :, :rows, :columns], alone[0])
        assert (batched[n, :, rows:] == 0).all() and (batched[n, :, :, columns:] == 0).all()
    # The sizes of the valid area are those that each image has on its own.
    with torch.no_grad():
        model([small])
    assert seen[-1][1].shape[-2:] == (70 // 16, 90 // 16)


@pytest.mark.parametrize(
    "wrap",
    [lambda it: torch.compile(it, backend="eager"), checkpoint_wrapper],
    ids=["compiled", "checkpointed"],
)
def test_a_wrapped_backbone_still_learns_the_sizes(wrap):
    model = small_model("MODEL.CONTEXT.DROPOUT", 0.0).eval()
    batch = [make_input(64, 96), make_input(96, 64)]
    with torch.no_grad():
        expected = [out["instances"] for out in model(batch)]
        model.backbone = wrap(model.backbone)
        found = [out["instances"] for out in model(batch)]
    for one, other in zip(expected, found):
        torch.testing.assert_close(one.scores, other.scores)


@pytest.mark.parametrize("labeled", [None, 0, 19, 20])
def test_a_segmentation_loss_without_label_maps_is_told_once(labeled, caplog):
    model = small_model(*SEG, "MODEL.VGG.WIDTH_MULTIPLIER", 0.0625)
    for batch in range(1, 42):
        told = sum("label map" in record.message for record in caplog.records)
        assert told == (batch > 20 and labeled in (None, 20))
        losses_of(model, make_input(32, 32, labels=batch - 1 == labeled))


def test_a_lone_image_needs_no_sizes():
    model = small_model().eval()
    called = []
    model.backbone.context.register_forward_pre_hook(lambda m, i: called.append(i[1]))
    with torch.no_grad():
        model([make_input()])
    assert called == [None]


@pytest.mark.parametrize("pooled", [["conv3", "conv4", "conv5"], ["conv5", "context"]])
@pytest.mark.parametrize("labels", [(True, True), (True, False), (False, False)])
def test_every_parameter_gets_a_finite_gradient(labels, pooled):
    model = small_model(*SEG, "MODEL.ROI_HEADS.IN_FEATURES", pooled)
    inputs = [make_input(96, 128, labels=labels[0]), make_input(80, 112, labels=labels[1], seed=1)]
    assert all(parameter.requires_grad for parameter in model.parameters())
    losses = train_step(model, *inputs)
    assert set(losses) >= {"loss_cls", "loss_box_reg", "loss_rpn_cls", "loss_rpn_loc"}
    assert (losses["loss_sem_seg"] > 0) == any(labels)


def test_unlabeled_image_and_padding_do_not_count_in_the_segmentation_loss():
    model = small_model(*SEG).eval()
    labeled, other = make_input(96, 128, labels=True), make_input(112, 144, seed=1)
    images = model.preprocess_image([labeled, other])
    targets = model._label_maps([labeled, other], images)
    assert torch.equal(targets[0, :96, :128], labeled["sem_seg"])
    assert (targets[0, 96:] == 255).all() and (targets[0, :, 128:] == 255).all()
    assert (targets[1] == 255).all()
    assert (model._label_maps([other, other], images) == 255).all()


def test_images_without_objects():
    losses = train_losses(small_model(*SEG), [make_input(boxes=0), make_input(boxes=0)])
    assert all(torch.isfinite(v) for v in losses.values())
    assert losses["loss_box_reg"] == 0


def test_segmentation_costs_nothing_at_inference_unless_asked_for():
    inputs = [make_input(96, 128)]
    inputs[0]["height"], inputs[0]["width"] = 192, 256
    model = small_model(*SEG).eval()
    model.sem_seg_head.forward = None
    with torch.no_grad():
        assert "sem_seg" not in model(inputs)[0]
    asked = small_model(*SEG, "TEST.SEM_SEG", True).eval()
    with torch.no_grad():
        assert asked(inputs)[0]["sem_seg"].shape == (4, 192, 256)


def test_eval_is_deterministic_and_scales_boxes_to_the_asked_size():
    model = small_model().eval()
    x = make_input(96, 128)
    with torch.no_grad():
        first, again = model([x])[0]["instances"], model([x])[0]["instances"]
        double = model([{**x, "height": 192, "width": 256}])[0]["instances"]
    assert torch.equal(first.pred_boxes.tensor, again.pred_boxes.tensor)
    torch.testing.assert_close(double.pred_boxes.tensor, first.pred_boxes.tensor * 2)


def test_plain_meta_architecture_runs_the_same_modules():
    ion, plain = small_model(), small_model("MODEL.META_ARCHITECTURE", "GeneralizedRCNN")
    plain.load_state_dict(ion.state_dict())
    x = [make_input()]
    with torch.no_grad():
        a, b = ion.eval()(x)[0]["instances"], plain.eval()(x)[0]["instances"]
    assert torch.equal(a.scores, b.scores)


def test_autocast_gives_finite_losses_close_to_float32():
    inputs = [make_input(96, 128, labels=True)]
    plain = train_losses(small_model(*SEG), inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = train_losses(small_model(*SEG), inputs)
    for name in ("loss_rpn_cls", "loss_cls"):
        assert mixed[name].item() == pytest.approx(plain[name].item(), rel=0.1)
    assert all(torch.isfinite(v) for v in mixed.values())
