"""Under Detectron2's trainers every setting of ION's is honored or told; prediction is free."""

import copy
from types import SimpleNamespace

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.engine import DefaultPredictor, DefaultTrainer, SimpleTrainer
from detectron2.evaluation import inference_on_dataset
from detectron2.modeling import build_model
from detectron2.solver import build_optimizer
from model_helpers import SMALL, make_input, small_config

from ion_d2.clipping import clip_whole_gradient
from ion_d2.config import add_ion_config
from ion_d2.errors import IONError
from ion_d2.modeling.trainer_settings import PROGRAM_KEYS, TRAINER_KEYS

STAGES = "[{'MAX_ITER': 3, 'BASE_LR': 0.1, 'FREEZE_AT': 5}]"
ASKING = {
    "SOLVER.STAGES": STAGES, "SOLVER.IMS_PER_PASS": 1, "SOLVER.EMA_DECAY": 0.9,
    "SOLVER.SKIP_NON_FINITE": 5, "SOLVER.DETERMINISTIC": True, "TEST.BEST_METRIC": "bbox/AP50",
    "TEST.PATIENCE": 2, "TEST.LOSS": True, "TEST.REPORT": True, "INPUT.SKIP_UNREADABLE": True,
    "DATASETS.SEM_SEG_DIRS": "('SegmentationSBD',)", "WANDB_PROJECT": "ion",
    "DISTRIBUTED.TIMEOUT": 7200, "SOLVER.AMP.PRECISION": "bfloat16",
}  # fmt: skip


class Trainer(DefaultTrainer):
    """As Detectron2's tools/train_net.py has it, without data."""

    @classmethod
    def build_train_loader(cls, cfg):
        return [[make_input()]]


def config(*opts, file="configs/ion_tiny.yaml"):
    """As a program of Detectron2's reads it."""
    cfg = get_cfg()
    add_ion_config(cfg)
    cfg.merge_from_file(file)
    cfg.merge_from_list([*SMALL, *map(str, opts)])
    return cfg


@pytest.mark.parametrize("key", ASKING)
def test_what_the_trainer_does_not_know_is_told(key, tmp_path):
    cfg = config(key, ASKING[key], "OUTPUT_DIR", tmp_path)
    with pytest.raises(IONError, match=rf"Trainer would ignore {key}: .*set {key} to"):
        Trainer(cfg)
    model = DefaultPredictor(cfg).model
    assert Trainer.test(cfg.clone(), model, []) == {}
    # Whoever trains a model by hand sees to its settings; an evaluation in between is no matter.
    model = build_model(cfg).train()
    inference_on_dataset(model, [[make_input()]], [])
    assert model.training and copy.deepcopy(model).train().training


def test_every_key_of_the_trainer_is_tried():
    assert set(ASKING) == {*TRAINER_KEYS, *PROGRAM_KEYS}


RESNET = (
    "MODEL.BACKBONE.NAME",
    "build_resnet_backbone",
    "MODEL.RPN.IN_FEATURES",
    "['res4']",
    "MODEL.ROI_HEADS.IN_FEATURES",
    "['res4']",
    "MODEL.ANCHOR_GENERATOR.SIZES",
    "[[32]]",
)
HEADS = ("MODEL.META_ARCHITECTURE", "GeneralizedRCNN", "MODEL.ROI_HEADS.NAME", "StandardROIHeads")
PLAIN = (*HEADS, "MODEL.ROI_BOX_HEAD.NAME", "FastRCNNConvFCHead", "MODEL.ROI_BOX_HEAD.NUM_FC", 1)
# Detectron2's own model but for one part of ION's.
PARTS = {
    "ION": (*RESNET, "MODEL.ROI_HEADS.NAME", "Res5ROIHeads"),
    "context": (*HEADS, "MODEL.ROI_HEADS.IN_FEATURES", "['context']"),
    "VGG": (*PLAIN, "MODEL.ROI_HEADS.IN_FEATURES", "['conv5']", "MODEL.BACKBONE.NAME",
            "build_ion_vgg_backbone"),
    "heads": (*RESNET, "MODEL.META_ARCHITECTURE", "GeneralizedRCNN"),
    "timm": (*PLAIN, "MODEL.BACKBONE.NAME", "build_timm_backbone", "MODEL.TIMM.NAME", "resnet10t",
             "MODEL.TIMM.OUT_FEATURES", "['stage4']", "MODEL.RPN.IN_FEATURES", "['stage4']",
             "MODEL.ROI_HEADS.IN_FEATURES", "['stage4']", "MODEL.ANCHOR_GENERATOR.SIZES", "[[32]]"),
    "anchors": (*PLAIN, *RESNET, "MODEL.ANCHOR_GENERATOR.NAME", "IONAnchorGenerator"),
}  # fmt: skip


@pytest.mark.parametrize("part", PARTS)
def test_any_part_of_ion_tells(part, tmp_path):
    if part == "timm":
        pytest.importorskip("timm")
    cfg = config(*PARTS[part], "SOLVER.EMA_DECAY", 0.9, "OUTPUT_DIR", tmp_path)
    with pytest.raises(IONError, match="SOLVER.EMA_DECAY"):
        Trainer(cfg)
    cfg.SOLVER.EMA_DECAY = 0.0
    assert Trainer(cfg).model.training


@pytest.mark.parametrize(
    "file",
    ["ion_vgg16_voc", "ion_vgg16_coco", "ion_vgg16_voc_seg", "sppnet_vgg16_voc",
     "paper/table1_ion_ss_rwd"],
)  # fmt: skip
def test_staged_recipes_are_told(file, tmp_path):
    cfg = config("MODEL.WEIGHTS", "", "OUTPUT_DIR", tmp_path, file=f"configs/{file}.yaml")
    with pytest.raises(IONError, match="SOLVER.STAGES"):
        Trainer(cfg)
    cfg.SOLVER.STAGES, cfg.SOLVER.IMS_PER_PASS, cfg.DATASETS.SEM_SEG_DIRS = [], 0, ()
    assert Trainer(cfg).max_iter == 100000


def test_a_trainer_may_honor_some_keys(tmp_path):
    cfg = config("SOLVER.EMA_DECAY", 0.9, "SOLVER.IMS_PER_PASS", 1, "OUTPUT_DIR", tmp_path)

    class Averaging(Trainer):
        honored_settings = ("SOLVER.EMA_DECAY",)

    with pytest.raises(IONError, match="Averaging would ignore SOLVER.IMS_PER_PASS: "):
        Averaging(cfg)
    cfg.SOLVER.IMS_PER_PASS = 0
    assert Averaging(cfg).model.training


@pytest.mark.parametrize(("vgg", "context"), [("BRN", ""), ("BN", "BRN"), ("BN", "")])
def test_no_trainer_of_detectron2_measures_batch_renormalization(vgg, context, tmp_path):
    opts = ("MODEL.VGG.NORM", vgg, "MODEL.CONTEXT.NORM", context, "OUTPUT_DIR", tmp_path)
    cfg = config(*opts, "TEST.PRECISE_BN.ENABLED", True)
    if "BRN" in (vgg, context):
        with pytest.raises(IONError, match="Trainer would .*BRN.*TEST.PRECISE_BN.ENABLED to False"):
            Trainer(cfg)
        cfg.TEST.PRECISE_BN.ENABLED = False
    assert Trainer(cfg).model.training


def test_a_plain_training_loop_of_detectron2_is_a_trainer_too():
    cfg = config("SOLVER.IMS_PER_PASS", 1)
    model = build_model(cfg)
    with pytest.raises(IONError, match="SimpleTrainer would ignore SOLVER.IMS_PER_PASS"):
        SimpleTrainer(model, [], build_optimizer(cfg, model))


PLAIN_STEP = (
    "SOLVER.MOMENTUM", 0.0, "SOLVER.BASE_LR", 1.0, "SOLVER.WEIGHT_DECAY", 0.0,
    "SOLVER.WEIGHT_DECAY_BIAS", 0.0, "SOLVER.WEIGHT_DECAY_NORM", 0.0, "SOLVER.WARMUP_ITERS", 0,
    "SOLVER.CLIP_GRADIENTS.CLIP_VALUE",
)  # fmt: skip


def plain_loop(cfg):
    """As Detectron2's plain_train_net.py has it: no trainer at all."""
    model = build_model(cfg)
    return SimpleNamespace(optimizer=build_optimizer(cfg, model), model=model.train())


@pytest.mark.parametrize(("loop", "value"), [(Trainer, 0.5), (Trainer, 1e9), (plain_loop, 0.5)])
def test_detectron2_clips_the_whole_gradient_as_the_config_says(loop, value, tmp_path):
    """One step at rate 1 along gradients that differ from parameter to parameter."""
    training = loop(config(*PLAIN_STEP, value, "OUTPUT_DIR", tmp_path))
    parameters = [p for p in training.model.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in parameters]
    sum((0.01 * (i + 1) * p).sum() for i, p in enumerate(parameters)).backward()
    wanted = -torch.cat([p.grad.flatten() for p in parameters]).double()
    wanted *= min(1, value / wanted.norm().item())
    training.optimizer.step()
    moved = torch.cat([(p - b).flatten() for p, b in zip(parameters, before)]).double()
    assert wanted.norm() > 0.4
    assert (moved - wanted).norm() < 0.02 * wanted.norm()


@pytest.mark.parametrize("fused", [True, False])
def test_mixed_precision_clips_the_unscaled_gradient(fused):
    """A fused optimizer takes the scale off within the step."""
    if not hasattr(torch.amp, "GradScaler"):
        pytest.skip("this PyTorch scales gradients on GPUs alone")
    for size, expected in ((0.5, 0.5), (4.0, 1.0)):
        parameter = torch.nn.Parameter(torch.zeros(1))
        clip_whole_gradient([parameter], 1.0)
        optimizer = torch.optim.SGD([parameter], lr=1.0, fused=fused)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        scaler.scale((size * parameter).sum()).backward()
        if not fused:
            scaler.unscale_(optimizer)  # as Detectron2's trainer does before it clips
        scaler.step(optimizer)
        assert -parameter.item() == pytest.approx(expected, rel=1e-5)


def test_clipping_by_value_and_of_the_whole_gradient_is_told(tmp_path):
    cfg = config("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "value", "OUTPUT_DIR", tmp_path)
    with pytest.raises(IONError, match="FULL_MODEL is True, but .*CLIP_TYPE is 'value'"):
        Trainer(cfg)


def test_older_configs_are_read_as_they_were_meant(tmp_path):
    clip = small_config("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "full_model").SOLVER.CLIP_GRADIENTS
    assert (clip.CLIP_TYPE, clip.FULL_MODEL) == ("norm", True)
    cfg = config("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "full_model", "OUTPUT_DIR", tmp_path)
    cfg.SOLVER.CLIP_GRADIENTS.FULL_MODEL = False  # which it does not know
    cfg.freeze()
    Trainer(cfg)  # Detectron2's
    clip = cfg.SOLVER.CLIP_GRADIENTS
    assert (clip.CLIP_TYPE, clip.FULL_MODEL, cfg.is_frozen()) == ("norm", True, True)


@pytest.mark.parametrize(
    ("key", "value", "part", "words"),
    [
        ("MODEL.ROI_HEADS.NUM_CLASSES", 0, (), "is 0; give the number"),
        ("MODEL.SEG_REGULARIZER_ON", True, PARTS["context"], "is True, but MODEL.META_ARCH"),
        ("TEST.FLIP_AVERAGING", True, PARTS["context"], "is True, but MODEL.META_ARCH"),
    ],
)
def test_what_needs_ion_itself_is_told(key, value, part, words, tmp_path):
    cfg = config(*part, key, value, "OUTPUT_DIR", tmp_path)
    for use in (Trainer, DefaultPredictor):
        with pytest.raises(IONError, match=f"{key} {words}"):
            use(cfg)
