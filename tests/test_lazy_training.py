"""The lazy twins are whole: Detectron2's lazy program trains, evaluates and saves with them."""

import json

import lazy_program
import pytest
import torch
from coco_json import RED, write_coco
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import LazyConfig, instantiate
from detectron2.data.datasets import register_coco_instances
from detectron2.evaluation import COCOEvaluator
from detectron2.layers import ShapeSpec
from detectron2.solver import LRMultiplier

from ion_d2.engine.setup import load_config
from ion_d2.engine.trainer import IONTrainer

SMALL = [
    "model.backbone.bottom_up.width_multiplier=0.125", "model.backbone.context.in_channels=64",
    "model.backbone.context.hidden_dim=16", "model.backbone.context.out_dim=16",
    "model.proposal_generator.head.in_channels=64", "model.roi_heads.box_pooler.out_channels=16",
    "model.roi_heads.box_pooler.channels=[32,64,64,16]", "model.roi_heads.num_classes=2",
    "model.roi_heads.box_head.input_shape.channels=16", "model.roi_heads.box_head.fc_dim=8",
    "model.proposal_generator.pre_nms_topk=[50,50]",
    "model.proposal_generator.post_nms_topk=[20,20]", "train.device=cpu", "train.max_iter=2",
    "train.eval_period=2", "train.log_period=1", "train.init_checkpoint=''",
    "dataloader.train.num_workers=0", "dataloader.test.num_workers=0",
    "dataloader.train.total_batch_size=2",
]  # fmt: skip


SPLITS = (("train", "trainval"), ("test", "test"))


def small(name, scenes, output, *opts):
    cfg = LazyConfig.load(f"configs/lazy/{name}.py")
    names = [f"dataloader.{part}.dataset.names=voc:{scenes}:{split}" for part, split in SPLITS]
    names.append(f"train.output_dir={output}")
    cfg = LazyConfig.apply_overrides(cfg, [*SMALL, *names, *opts])
    for mapper in (cfg.dataloader.train.mapper, cfg.dataloader.test.mapper):
        mapper.augmentations[0].update(short_edge_length=96, max_size=160)
    return cfg


@pytest.mark.parametrize("name", ["ion_vgg16_voc", "ion_vgg16_voc_seg"])
def test_the_voc_recipe_trains_and_evaluates(name, scenes, tmp_path):
    segments = name.endswith("seg")
    more = ["model.sem_seg_head.channels=16", "model.sem_seg_head.num_classes=3",
            "dataloader.train.mapper.num_label_ids=3",
            "dataloader.train.dataset.sem_seg_dirs=[SegmentationClass]"]  # fmt: skip
    torch.manual_seed(0)
    cfg = small(name, scenes, tmp_path, *(more if segments else ()))
    figures = lazy_program.train(cfg)
    assert {"AP", "AP50", "AP75"} <= set(figures["bbox"])
    assert (tmp_path / "model_final.pth").is_file() and (tmp_path / "voc_results.json").is_file()
    lines = [json.loads(x) for x in (tmp_path / "metrics.json").read_text().splitlines()]
    assert ("loss_sem_seg" in lines[0]) == segments
    assert not segments or lines[0]["loss_sem_seg"] > 0
    again = instantiate(cfg.model)
    DetectionCheckpointer(again).load(str(tmp_path / "model_final.pth"))
    assert lazy_program.evaluate(cfg, again)["bbox"] == pytest.approx(figures["bbox"], nan_ok=True)


def groups(optimizer):
    """Settings of each parameter."""
    keys = ("lr", "weight_decay", "momentum")
    return {id(p): [g[k] for k in keys] for g in optimizer.param_groups for p in g["params"]}


def test_optimizer_and_schedule_are_those_of_the_yaml_twin(scenes, tmp_path):
    yaml_cfg = load_config(
        "configs/ion_vgg16_voc_d2.yaml", ["MODEL.DEVICE", "cpu", "SOLVER.WEIGHT_DECAY_NORM", "0.0"]
    )
    cfg = small("ion_vgg16_voc", scenes, tmp_path)
    model = instantiate(cfg.model)
    cfg.optimizer.params.model = model
    optimizer, expected = instantiate(cfg.optimizer), IONTrainer.build_optimizer(yaml_cfg, model)
    assert groups(optimizer) == groups(expected)
    lazily = LRMultiplier(optimizer, instantiate(cfg.lr_multiplier), 100000)
    by_yaml = IONTrainer.build_lr_scheduler(yaml_cfg, expected)
    whole = LazyConfig.load("configs/lazy/ion_vgg16_voc.py").train
    assert (whole.max_iter, whole.init_checkpoint) == (100000, yaml_cfg.MODEL.WEIGHTS)
    for at in (0, 500, 999, 1000, 69999, 70000, 89999, 90000, 99999):
        lazily.last_epoch = by_yaml.last_epoch = at
        assert lazily.get_lr() == pytest.approx(by_yaml.get_lr(), rel=1e-9), at


def test_the_whole_gradient_is_bounded(scenes, tmp_path):
    cfg = small("ion_vgg16_voc", scenes, tmp_path, "optimizer.momentum=0", "optimizer.lr=1.0")
    cfg.optimizer.params.update(max_norm=0.5, weight_decay=0.0, bias_lr_factor=1.0)
    model = cfg.optimizer.params.model = instantiate(cfg.model)
    optimizer = instantiate(cfg.optimizer)
    before = [p.detach().clone() for p in model.parameters()]
    (sum(p.sum() for p in model.parameters() if p.requires_grad) * 10).backward()
    optimizer.step()
    moved = [(p - b).flatten() for p, b in zip(model.parameters(), before)]
    assert torch.cat(moved).double().norm().item() == pytest.approx(0.5, rel=1e-3)


def test_plugged_mask_rcnn_trains_and_evaluates(tmp_path, catalogs):
    torch.manual_seed(0)
    write_coco(tmp_path, *[[(RED, 8, 8, 32, "polygon")]] * 2)
    register_coco_instances("squares", {}, f"{tmp_path}/all.json", f"{tmp_path}/pictures")
    cfg = LazyConfig.apply_overrides(
        LazyConfig.load("configs/lazy/mask_rcnn_R_50_FPN.py"),
        [
            *[x for x in SMALL if x.startswith(("train.", "dataloader."))],
            "dataloader.train.dataset.names=squares", "dataloader.test.dataset.names=squares",
            f"train.output_dir={tmp_path / 'out'}", "model.roi_heads.num_classes=2",
            "model.backbone.context.hidden_dim=16", "model.roi_heads.box_head.fc_dims=[32,32]",
            "model.roi_heads.batch_size_per_image=16",
            "model.proposal_generator.post_nms_topk=[20,20]",
            "model.roi_heads.box_predictor.test_score_thresh=0.0",
            "optimizer.lr=1e-6",  # random weights under norms at rest bear no more
        ],
    )  # fmt: skip
    cfg.model.roi_heads.box_predictor.input_shape = ShapeSpec(channels=32)
    for mapper in (cfg.dataloader.train.mapper, cfg.dataloader.test.mapper):
        mapper.augmentations[0].update(short_edge_length=64, max_size=96)
    assert cfg.dataloader.evaluator._target_ is COCOEvaluator
    cfg.dataloader.evaluator.use_fast_impl = False  # not every build has the compiled one
    (tmp_path / "out").mkdir()
    figures = lazy_program.train(cfg)
    assert '"loss_mask"' in (tmp_path / "out" / "metrics.json").read_text()
    assert {"bbox", "segm"} <= set(figures)
