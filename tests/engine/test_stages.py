"""Stages: how they are read, the learning rate they give, and what they train."""

import math
from types import SimpleNamespace

import pytest
import torch
from model_helpers import small_config, small_model
from torch import nn

from ion_d2.engine.setup import load_config
from ion_d2.engine.stages import (
    EnterStages,
    Stage,
    build_stage_scheduler,
    check_backbone,
    read_stages,
    rest_backbone,
)
from ion_d2.engine.trainer import IONTrainer
from ion_d2.errors import IONError

VOC = "configs/ion_vgg16_voc.yaml"
TWO = "[{'MAX_ITER': 3, 'BASE_LR': 0.1, 'FREEZE_AT': 5}, {'MAX_ITER': 4, 'BASE_LR': 0.2}]"


def test_stages_from_file_and_command_line_are_the_same(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(
        "SOLVER:\n  STAGES:\n  - {MAX_ITER: 3, BASE_LR: 1e-1, FREEZE_AT: 5}\n"
        "  - MAX_ITER: 4\n    BASE_LR: 2e-1\n"
    )
    # YAML takes 1e-1 for a string.
    from_file, from_list = load_config(str(path)), small_config("SOLVER.STAGES", TWO)
    frozen = [Stage(3, 0.1, 0.1, 5), Stage(4, 0.2, 0.2, 2)]
    assert read_stages(from_file) == frozen
    assert read_stages(from_list) == [frozen[0], Stage(4, 0.2, 0.2, 0)]
    assert from_file.SOLVER.MAX_ITER == from_list.SOLVER.MAX_ITER == 7
    # What a run writes as its config.yaml gives the same again, and may be changed again.
    path.write_text(from_list.dump())
    assert load_config(str(path)).SOLVER == from_list.SOLVER
    assert load_config(str(path), ["SOLVER.STAGES", "[]"]).SOLVER.STAGES == []


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ("5", r"SOLVER.STAGES is .*, of type"),
        ("[5]", r"SOLVER.STAGES\[0\] is 5"),
        ("[{'MAX_ITER': 3}]", r"SOLVER.STAGES\[0\] has no BASE_LR"),
        ("[{'MAX_ITER': 3, 'BASE_LR': 1, 'LR': 2}]", r"STAGES\[0\] has the unknown key 'LR'"),
        ("[{'MAX_ITER': 0, 'BASE_LR': 1}]", r"STAGES\[0\].MAX_ITER is 0"),
        ("[{'MAX_ITER': 3, 'BASE_LR': 0}]", r"STAGES\[0\].BASE_LR is 0"),
        ("[{'MAX_ITER': 3, 'BASE_LR': 'x'}]", r"STAGES\[0\].BASE_LR is 'x'"),
        ("[{'MAX_ITER': 3, 'BASE_LR': 1, 'END_LR': -1}]", r"STAGES\[0\].END_LR is -1"),
        ("[{'MAX_ITER': 3, 'BASE_LR': 1, 'FREEZE_AT': 6}]", r"STAGES\[0\].FREEZE_AT is 6"),
        ("[{'MAX_ITER': 3, 'BASE_LR': 1, 'WARMUP_ITERS': 3}]", "WARMUP_ITERS is 3.*0 to 2"),
        # It would train what is frozen for good.
        (TWO.replace("0.2}", "0.2, 'FREEZE_AT': 1}"), r"STAGES\[1\].FREEZE_AT is 1.*FREEZE_AT 2"),
    ],
)
def test_bad_stages_are_one_sentence(stages, words):
    with pytest.raises(IONError, match=words):
        small_config("SOLVER.STAGES", stages, "MODEL.BACKBONE.FREEZE_AT", 2)


@pytest.mark.parametrize(
    ("key", "value"),
    [("SOLVER.MAX_ITER", "10"), ("SOLVER.BASE_LR", "0.1"), ("SOLVER.STEPS", "(1,)")],
)
def test_override_without_effect_is_refused(key, value):
    with pytest.raises(IONError, match=f"{key} has no effect.*SOLVER.STAGES"):
        load_config(VOC, [key, value])
    assert load_config(VOC, [key, value, "SOLVER.STAGES", "[]"]).SOLVER.STAGES == []


def make_scheduler(cfg):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=cfg.SOLVER.BASE_LR)
    return optimizer, IONTrainer.build_lr_scheduler(cfg, optimizer)


def test_learning_rate_of_the_paper():
    at = (0, 1, 20000, 39999, 40000, 40001, 90000, 139999)
    _, scheduler = make_scheduler(load_config(VOC))
    found = {}
    for scheduler.last_epoch in at:
        (found[scheduler.last_epoch],) = scheduler.get_lr()
    for i, rate in found.items():
        expected = 5e-3 * 0.02 ** (i / 40000) if i < 40000 else 1e-3 * 0.01 ** ((i - 40000) / 1e5)
        assert rate == pytest.approx(expected, rel=1e-9)
    assert found[20000] == pytest.approx(math.sqrt(5e-3 * 1e-4))
    assert found[1] / found[0] == pytest.approx(0.9999022, rel=1e-7)
    assert found[40001] / found[40000] == pytest.approx(0.9999539, rel=1e-7)


def test_any_number_of_stages_constant_rates_and_warm_up():
    stages = (
        "[{'MAX_ITER': 2, 'BASE_LR': 0.3}, {'MAX_ITER': 4, 'BASE_LR': 0.4, 'WARMUP_ITERS': 2},"
        " {'MAX_ITER': 1, 'BASE_LR': 0.5}, {'MAX_ITER': 2, 'BASE_LR': 0.8, 'END_LR': 0.2}]"
    )
    cfg = small_config("SOLVER.STAGES", stages, "SOLVER.WARMUP_FACTOR", 0.5)
    optimizer, scheduler = make_scheduler(cfg)
    found = []
    for _ in range(9):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert found == pytest.approx([0.3, 0.3, 0.2, 0.3, 0.4, 0.4, 0.5, 0.8, 0.4])


def test_the_relative_rates_of_parameters_stay():
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in (0.1, 0.2)]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    stages = [Stage(1, 0.1, 0.1, 0), Stage(1, 0.5, 0.5, 0)]
    scheduler = build_stage_scheduler(optimizer, stages, None)
    optimizer.step()
    scheduler.step()
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.5, 1.0])


@pytest.mark.parametrize(
    ("first", "expected"),
    [(0, [(0, 5), (2, 3), (5, 0)]), (3, [(3, 3), (5, 0)]), (2, [(2, 3), (5, 0)])],
)
def test_stages_are_entered_at_their_first_iteration_or_where_a_run_is_resumed(first, expected):
    entered = []
    hook = EnterStages([Stage(2, 1, 1, 5), Stage(3, 1, 1, 3), Stage(1, 1, 1, 0)])
    hook.trainer = SimpleNamespace()
    hook.trainer.enter_stage = lambda stage: entered.append((hook.trainer.iter, stage.freeze_at))
    for hook.trainer.iter in range(first, 6):
        hook.before_step()
    assert entered == expected


def step(model, optimizer):
    """One step with a gradient of 1 for whatever can have one."""
    optimizer.zero_grad()
    sum(p.sum() for p in model.parameters() if p.requires_grad).backward()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer.step()
    return {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}


@pytest.mark.parametrize("norm", ["", "GN", "BN", "BRN"])
def test_what_rests_does_not_move_whatever_came_before(norm):
    model = small_model("MODEL.VGG.NORM", norm)
    cfg = small_config("SOLVER.WEIGHT_DECAY", 0.1, "SOLVER.MOMENTUM", 0.9)
    optimizer = IONTrainer.build_optimizer(cfg, model)
    names = {n for n, _ in model.named_parameters()}
    blocks = {n: int(n.split(".conv")[1][0]) for n in names if n.startswith("backbone.bottom_up.")}
    for freeze_at in (5, 2, 0, 3, 5, 0):
        rest_backbone(model, freeze_at, optimizer)
        for _ in range(2):
            moved = step(model, optimizer)
            assert moved == {n for n in names if blocks.get(n, 9) > freeze_at}


def test_old_momentum_does_not_move_what_wakes():
    model = small_model()
    cfg = small_config("SOLVER.WEIGHT_DECAY", 0.0, "SOLVER.MOMENTUM", 0.9)
    optimizer = IONTrainer.build_optimizer(cfg, model)
    step(model, optimizer)
    weight = model.backbone.bottom_up.conv3_1.weight
    assert optimizer.state[weight]["momentum_buffer"].abs().sum() > 0
    assert rest_backbone(model, 3, optimizer)
    assert weight not in optimizer.state and weight.grad is None
    assert rest_backbone(model, 0, optimizer) and not rest_backbone(model, 0, optimizer)
    weight.grad = torch.zeros_like(weight)
    before = weight.detach().clone()
    optimizer.step()
    assert torch.equal(before, weight)


def test_batch_norm_rests_too_through_evaluations():
    vgg = small_model("MODEL.VGG.NORM", "BN").backbone.bottom_up
    vgg.rest_blocks(2)
    for _ in range(2):
        vgg.eval()
        vgg.train()
        before = {n: b.clone() for n, b in vgg.named_buffers()}
        vgg(torch.randn(2, 3, 32, 32))
        changed = {n[:5] for n, b in vgg.named_buffers() if not torch.equal(b, before[n])}
        assert changed == {"conv3", "conv4", "conv5"}
        vgg.rest_blocks(2)
    vgg.rest_blocks(0)
    assert vgg.conv1_1.norm.training


def test_blocks_frozen_for_good_do_not_wake():
    vgg = small_model("MODEL.BACKBONE.FREEZE_AT", 2).backbone.bottom_up
    for count in (4, 0):
        vgg.rest_blocks(count)
        trained = {n[:5] for n, p in vgg.named_parameters() if p.requires_grad}
        assert trained == {f"conv{b}" for b in range(max(count, 2) + 1, 6)}


def test_backbone_that_cannot_rest_is_refused_at_the_start():
    stages = [Stage(1, 1, 1, 2), Stage(1, 1, 1, 5)]
    with pytest.raises(IONError, match=r"STAGES\[1\]\.FREEZE_AT is 5.*leave FREEZE_AT out"):
        check_backbone(nn.Linear(1, 1), stages, 2)
    check_backbone(nn.Linear(1, 1), stages[:1], 2)
    check_backbone(small_model(), stages, 2)
