"""The losses on test sets are means over images, without side effects."""

import json
import logging

import pytest
import torch
from detectron2.structures import BitMasks
from detectron2.utils.events import EventStorage
from model_helpers import make_input, small_model
from trainer_helpers import assert_same, make_config, run

from ion_d2.engine import validation_loss
from ion_d2.engine.setup import build_model
from ion_d2.engine.trainer import IONTrainer
from ion_d2.engine.validation_loss import computing_losses, validation_losses
from ion_d2.errors import IONError

LOSSES = {"loss_cls", "loss_box_reg", "loss_rpn_cls", "loss_rpn_loc", "loss_sem_seg", "total_loss"}
OPTIONS = ("TEST.LOSS", True, "MODEL.SEG_REGULARIZER_ON", True, "TEST.NUM_PICTURES", 0)


def name_of(cfg):
    return cfg.DATASETS.TEST[0]


def test_nothing_is_dropped_or_measured():
    model = small_model("MODEL.VGG.NORM", "BN", "MODEL.ROI_BOX_HEAD.FC_DROPOUT", 0.9).train()
    model.backbone.eval()  # some parts may rest
    modes = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with EventStorage(), torch.no_grad(), computing_losses(model):
        torch.manual_seed(0)
        first = model([make_input()])
        torch.manual_seed(0)
        assert first == model([make_input()]) and "loss_cls" in first
    assert [module.training for module in model.modules()] == modes
    assert_same(model, state)


def test_masks_have_a_loss_too():
    model, x = small_model("MODEL.MASK_ON", True), make_input()
    x["instances"].gt_masks = BitMasks(torch.ones(2, 96, 128, dtype=torch.bool))
    with EventStorage(), torch.no_grad(), computing_losses(model):
        assert model([x])["loss_mask"] > 0


def test_mean_over_images_is_that_of_single_images(scenes, tmp_path, monkeypatch):
    cfg = make_config(scenes, tmp_path, *OPTIONS)
    torch.manual_seed(0)
    model = build_model(cfg)
    random = torch.get_rng_state()
    found = validation_losses(cfg, model, name_of(cfg))
    assert set(found) == LOSSES and torch.equal(torch.get_rng_state(), random)
    parts = sum(value for name, value in found.items() if name != "total_loss")
    assert found["total_loss"] == pytest.approx(parts) and all(v > 0 for v in found.values())
    # In any order, and one by one.
    test_dicts = validation_loss.test_dicts
    monkeypatch.setattr(validation_loss, "test_dicts", lambda *a, **k: test_dicts(*a, **k)[::-1])
    assert validation_losses(cfg, model, name_of(cfg)) == pytest.approx(found, rel=1e-6)
    singles = []
    for i in range(len(test_dicts(cfg, name_of(cfg)))):
        monkeypatch.setattr(
            validation_loss, "test_dicts", lambda *a, i=i, **k: [test_dicts(*a, **k)[i]]
        )
        singles.append(validation_losses(cfg, model, name_of(cfg))["total_loss"])
    assert len(set(singles)) == 3
    assert sum(singles) / 3 == pytest.approx(found["total_loss"], rel=1e-6)


def test_it_is_logged_with_the_evaluation_and_changes_no_weight(scenes, tmp_path):
    opts = ("TEST.EVAL_PERIOD", 1, "SOLVER.MAX_ITER", 2)
    plain = run(make_config(scenes, tmp_path / "plain", *OPTIONS, *opts, "TEST.LOSS", False))
    trainer = run(make_config(scenes, tmp_path / "loss", *OPTIONS, *opts))
    assert set(trainer.last_results["validation"]) == LOSSES
    lines = (tmp_path / "loss" / "metrics.json").read_text().splitlines()
    logged = [json.loads(line) for line in lines]
    at = [x["iteration"] for x in logged if "validation/total_loss" in x]
    assert at[-1] == 2
    assert_same(plain.model, trainer.model)


def test_several_test_sets(scenes, tmp_path, caplog, monkeypatch):
    for name in ("detectron2", "ion_d2"):
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
    caplog.set_level(logging.INFO)
    names = tuple(f"voc:{scenes}:{split}" for split in ("test", "trainval"))
    opts = (*OPTIONS, "DATASETS.TEST", names, "TEST.NUM_PICTURES", 1)
    cfg = make_config(scenes, tmp_path, *opts)
    results = IONTrainer.test(cfg, IONTrainer.build_model(cfg))
    written = [json.loads(path.read_text()) for path in tmp_path.glob("*/voc_results.json")]
    assert {each["dataset"] for each in written} == set(names)
    assert len(list(tmp_path.glob("*/pictures/*"))) == 2
    totals = [results[name]["validation"]["total_loss"] for name in names]
    assert totals[0] != totals[1]
    for name, total in zip(names, totals):  # told, as an evaluation on its own tells nothing else
        (_, told) = caplog.text.split(f"Losses on {name} ")
        assert f"{total:.4f}," in told


def test_images_without_annotations_are_named(scenes, tmp_path, monkeypatch):
    cfg = make_config(scenes, tmp_path, *OPTIONS)
    dicts = [{**d} for d in validation_loss.test_dicts(cfg, name_of(cfg))]
    for each in dicts:
        del each["annotations"]
    monkeypatch.setattr(validation_loss, "test_dicts", lambda *a, **k: dicts)
    with pytest.raises(IONError, match="TEST.LOSS needs boxes.*jpg"):
        validation_losses(cfg, build_model(cfg), name_of(cfg))
