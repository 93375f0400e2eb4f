"""Test-time augmentation of an ION, against its steps done by hand."""

import logging

import numpy as np
import pytest
import torch
from cli_helpers import load_tool
from detectron2.layers import batched_nms
from model_helpers import make_input, small_config, small_model
from PIL import Image
from trainer_helpers import make_config

from ion_d2.engine.augmented_test import with_augmentation
from ion_d2.engine.predictor import IONPredictor
from ion_d2.engine.trainer import IONTrainer
from ion_d2.errors import IONError

pytestmark = pytest.mark.slow

# Sizes for the pictures of 96 x 128 pixels that the tests use.
OPTIONS = ("TEST.AUG.ENABLED", True, "TEST.AUG.MIN_SIZES", "(96, 64)", "TEST.AUG.MAX_SIZE", 200,
           "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.2, "MODEL.META_ARCHITECTURE", "ION")  # fmt: skip


def spread_model(*opts):
    """A model whose scores differ by more than rounding."""
    model = small_model(*opts).eval()
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.weight.mul_(300)
    return model


def picture(height=96, width=128):
    return {**make_input(height, width), "height": height, "width": width}


@torch.no_grad()
def by_hand(model, cfg, x, shapes):
    """Detections of each size and its mirror, brought back and suppressed together."""
    inputs = []
    for height, width in shapes:
        pixels = x["image"].permute(1, 2, 0).numpy()
        if (height, width) != pixels.shape[:2]:
            pixels = np.asarray(Image.fromarray(pixels).resize((width, height), Image.BILINEAR))
        image = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
        inputs += [{"image": image}, {"image": image.flip(-1)}]
    # One by one: GroupNorm sees the padding of a batch.
    found = [model.inference([each], do_postprocess=False)[0] for each in inputs]
    boxes = []
    for number, instances in enumerate(found):
        height, width = instances.image_size
        corners = instances.pred_boxes.tensor.clone()
        if number % 2:
            corners[:, [0, 2]] = width - corners[:, [2, 0]]
        boxes.append(corners * torch.tensor([x["width"] / width, x["height"] / height] * 2))
    boxes = torch.cat(boxes)
    scores = torch.cat([instances.scores for instances in found])
    classes = torch.cat([instances.pred_classes for instances in found])
    kept = batched_nms(boxes, scores, classes, cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST)
    kept = kept[: cfg.TEST.DETECTIONS_PER_IMAGE]
    return boxes[kept], scores[kept], classes[kept]


@torch.no_grad()
def detections(model, x, *opts):
    (found,) = with_augmentation(small_config(*opts), model)([x])
    return found["instances"]


@pytest.mark.parametrize("refined", [False, True])
def test_it_merges_sizes_and_mirrors(refined):
    opts = (*OPTIONS, "TEST.BOX_REFINEMENT.ENABLED", refined)
    model, x = spread_model(*opts), picture()
    found = detections(model, x, *opts)
    boxes, scores, classes = by_hand(model, small_config(*opts), x, [(96, 128), (64, 85)])
    assert len(found) == len(scores) > 5
    torch.testing.assert_close(found.scores, scores, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.pred_boxes.tensor, boxes, rtol=1e-3, atol=1e-2)
    assert torch.equal(found.pred_classes, classes)


def test_image_without_detections():
    opts = (*OPTIONS, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 1.0)
    assert len(detections(small_model(*opts), picture(), *opts)) == 0


def test_masks_come_in_the_size_of_the_image():
    opts = (*OPTIONS, "MODEL.MASK_ON", True, "TEST.DETECTIONS_PER_IMAGE", 5)
    masks = detections(small_model(*opts), picture(), *opts).pred_masks
    assert masks.shape == (5, 96, 128) and masks.dtype == torch.bool and masks.any()


def test_predictor_uses_it():
    size, model = ("INPUT.MIN_SIZE_TEST", 96), spread_model(*OPTIONS)
    pixels = picture()["image"].permute(1, 2, 0).numpy()[:, :, ::-1]  # the model's are RGB
    augmented = IONPredictor(small_config(*OPTIONS, *size), model)(pixels)["instances"]
    alone = IONPredictor(small_config(*size), model)(pixels)["instances"]
    expected = detections(model, picture(), *OPTIONS)
    torch.testing.assert_close(augmented.scores, expected.scores)
    assert not torch.equal(augmented.scores, alone.scores)
    assert augmented.image_size == (96, 128)


def test_evaluation_adds_its_figures(scenes, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    cfg = make_config(
        scenes, tmp_path, *OPTIONS, "TEST.NUM_PICTURES", 1, "MODEL.SEG_REGULARIZER_ON", True,
        "TEST.SEM_SEG", True,
    )  # fmt: skip
    results = IONTrainer.test(cfg, IONTrainer.build_model(cfg))
    assert {"bbox", "bbox_TTA", "sem_seg", "bbox_coco_TTA"} <= set(results)
    assert set(results["bbox"]) == set(results["bbox_TTA"])
    assert (tmp_path / "voc_results.json").is_file()
    assert (tmp_path / "tta" / "voc_results.json").is_file()
    assert f"sizes 96, 64; its results are in {tmp_path / 'tta'}." in caplog.text
    left = load_tool("run_end").left_files(cfg, str(tmp_path), False)["results"]
    assert {"voc_results.json", "tta/voc_results.json", "tta/detections.json"} <= set(left)


def test_wrong_settings_are_told_before_the_evaluation(scenes, tmp_path):
    cfg = make_config(scenes, tmp_path, *OPTIONS, "TEST.AUG.MIN_SIZES", "()")
    with pytest.raises(IONError, match="TEST.AUG.MIN_SIZES is empty"):
        IONTrainer.test(cfg, IONTrainer.build_model(cfg))
    assert not list(tmp_path.iterdir())


def test_during_a_training_it_waits_for_the_end(scenes, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        IONTrainer, "test", classmethod(lambda cls, cfg, model: asked.append(cfg.TEST.AUG.ENABLED))
    )
    opts = ("TEST.EVAL_PERIOD", 1, "SOLVER.MAX_ITER", 2)
    trainer = IONTrainer(make_config(scenes, tmp_path, *OPTIONS, *opts))
    trainer.train()
    assert asked == [False, True]


def test_wrong_settings():
    cfg = small_config(*OPTIONS, "MODEL.LOAD_PROPOSALS", True)
    with pytest.raises(IONError, match="MODEL.LOAD_PROPOSALS True"):
        with_augmentation(cfg, small_model(*OPTIONS))
