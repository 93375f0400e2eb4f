"""Training, stopping, resuming and evaluating on real files."""

import json
import logging
import re
import signal

import pytest
import torch
from detectron2.engine import DefaultTrainer
from detectron2.solver import LRMultiplier
from fvcore.common.param_scheduler import StepWithFixedGammaParamScheduler
from model_helpers import small_config
from trainer_helpers import Record, assert_same, make_config, run

import ion_d2
from ion_d2.engine import trainer as trainer_module
from ion_d2.engine.hooks import TrainingInterrupted
from ion_d2.engine.trainer import IONTrainer
from ion_d2.errors import IONError

pytestmark = pytest.mark.slow

SCHEDULE, WORLD_SIZE = "SOLVER.LR_SCHEDULER_NAME", "SOLVER.REFERENCE_WORLD_SIZE"


@pytest.mark.parametrize("workers", [0, 2])
def test_interrupted_and_resumed_equals_uninterrupted_bit_for_bit(
    scenes, tmp_path, no_test, workers
):
    opts = ("DATALOADER.NUM_WORKERS", workers, "MODEL.SEG_REGULARIZER_ON", True,
            "MODEL.CONTEXT.DROPOUT", 0.25)  # fmt: skip
    whole = Record()
    expected = run(make_config(scenes, tmp_path / "whole", *opts), whole)
    cfg = make_config(scenes, tmp_path / "cut", *opts)
    first, second = Record(interrupt_at=2), Record()
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(TrainingInterrupted, match="iteration 2"):
        run(cfg, first)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert (tmp_path / "cut" / "model_0000002.pth").is_file()
    resumed = run(cfg, second, resume=True)
    assert sorted(first.losses) == [0, 1] and sorted(second.losses) == [3, 4, 5]
    for iteration, losses in {**first.losses, **second.losses}.items():
        assert losses == whole.losses[iteration]
    assert_same(resumed.model, expected.model)


def test_a_seed_that_was_drawn_is_that_of_the_resumed_training(
    scenes, tmp_path, no_test, caplog, monkeypatch
):
    opts = ("SEED", -1, "DATALOADER.NUM_WORKERS", 0, "MODEL.CONTEXT.DROPOUT", 0.25)
    cfg = make_config(scenes, tmp_path / "cut", *opts, "SOLVER.MAX_ITER", 3)
    first, second, whole = Record(interrupt_at=1), Record(), Record()
    monkeypatch.setattr(logging.getLogger("ion_d2"), "propagate", True)
    caplog.set_level(logging.INFO)
    with pytest.raises(TrainingInterrupted):
        run(cfg, first)
    (drawn,) = re.findall(r"SEED is below 0; (\d+) was drawn", caplog.text)
    resumed = run(cfg, second, resume=True)
    assert str(resumed.cfg.SEED) == drawn
    seeded = make_config(scenes, tmp_path / "whole", *opts, "SOLVER.MAX_ITER", 3, "SEED", drawn)
    expected = run(seeded, whole)
    assert {**first.losses, **second.losses}.items() <= whole.losses.items()
    assert_same(resumed.model, expected.model)
    # One that the user gives is the user's.
    other = make_config(scenes, tmp_path / "cut", *opts, "SOLVER.MAX_ITER", 4, "SEED", 5)
    trainer = IONTrainer(other)
    trainer.resume_or_load(resume=True)
    assert trainer.cfg.SEED == 5


def test_a_new_training_is_not_resumed_from_the_one_before(scenes, tmp_path, no_test):
    run(make_config(scenes, tmp_path, "SOLVER.MAX_ITER", 2))
    cfg = make_config(scenes, tmp_path, "SOLVER.MAX_ITER", 3)

    class Killed(Record):
        def after_step(self):
            raise KeyboardInterrupt  # before its first checkpoint

    with pytest.raises(KeyboardInterrupt):
        run(cfg, Killed())
    again = Record()
    run(cfg, again, resume=True)
    assert sorted(again.losses) == [0, 1, 2]


def test_the_optimizer_of_a_resumed_training_is_that_of_the_config(scenes, tmp_path, no_test):
    run(make_config(scenes, tmp_path, "SOLVER.MAX_ITER", 1))
    changed = ("SOLVER.WEIGHT_DECAY", 0.03, "SOLVER.WEIGHT_DECAY_NORM", 0.03,
               "SOLVER.MOMENTUM", 0.5, "SOLVER.NESTEROV", True)  # fmt: skip
    trainer = IONTrainer(make_config(scenes, tmp_path, *changed))
    expected = [{**g, "params": None, "lr": None} for g in trainer.optimizer.param_groups]
    trainer.resume_or_load(resume=True)
    groups = trainer.optimizer.param_groups
    assert [{**g, "params": None, "lr": None} for g in groups] == expected
    assert {(g["momentum"], g["nesterov"]) for g in groups} == {(0.5, True)}
    assert any(s["momentum_buffer"].any() for s in trainer.optimizer.state.values())


def test_a_signal_in_the_last_step_leaves_the_evaluation_to_resume(scenes, tmp_path, monkeypatch):
    tested = []
    monkeypatch.setattr(IONTrainer, "test", classmethod(lambda *args: tested.append(1) or {}))
    cfg = make_config(scenes, tmp_path)
    with pytest.raises(TrainingInterrupted, match="iteration 5"):
        run(cfg, Record(interrupt_at=5))
    assert [path.name for path in tmp_path.glob("*.pth")] == ["model_final.pth"] and not tested
    run(cfg, Record(), resume=True)
    assert tested == [1]


def test_evaluation_writes_figures_and_pictures(scenes, tmp_path):
    cfg = make_config(
        scenes, tmp_path, "SOLVER.MAX_ITER", 1, "MODEL.SEG_REGULARIZER_ON", True, "TEST.SEM_SEG",
        True, "TEST.NUM_PICTURES", 2,
    )  # fmt: skip
    results = run(cfg)._last_eval_results
    assert {"AP", "AP50", "AP75", "AP50-cross", "AP50-triangle"} <= set(results["bbox"])
    assert {"APs", "APm", "APl"} <= set(results["bbox_coco"]) and "mIoU" in results["sem_seg"]
    assert len(list((tmp_path / "pictures").iterdir())) == 2
    assert json.loads((tmp_path / "voc_results.json").read_text())
    assert (tmp_path / "model_final.pth").is_file() and (tmp_path / "metrics.json").is_file()


def test_clipping_takes_the_norm_of_the_whole_gradient():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    for value in (0.5, 1e9):
        cfg = small_config("SOLVER.CLIP_GRADIENTS.CLIP_VALUE", value, "SOLVER.MOMENTUM", 0.0,
                           "SOLVER.BASE_LR", 1.0, "SOLVER.WEIGHT_DECAY", 0.0)  # fmt: skip
        optimizer = IONTrainer.build_optimizer(cfg, model)
        optimizer.zero_grad()
        before = [p.detach().clone() for p in model.parameters()]
        (model(torch.ones(1, 3)).sum() * 10).backward()
        norm = torch.cat([p.grad.flatten() for p in model.parameters()]).norm().item()
        optimizer.step()
        moved = torch.cat([(p - b).flatten() for p, b in zip(model.parameters(), before)])
        assert moved.norm().item() == pytest.approx(min(norm, value), rel=1e-4)


def test_clipping_that_is_off_is_told(caplog):
    for opts, told in (((), 0), (("SOLVER.CLIP_GRADIENTS.ENABLED", False), 1)):
        IONTrainer.build_optimizer(small_config(*opts), torch.nn.Linear(3, 4))
        assert sum("FULL_MODEL is True, but" in x.getMessage() for x in caplog.records) == told


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler"), "DATALOADER.SAMPLER_TRAIN"),
        (("TEST.REPORT", True), "IONTrainer would ignore TEST.REPORT"),
        (("SOLVER.AMP.PRECISION", "bfloat16"), "set SOLVER.AMP.ENABLED to True"),
        ((SCHEDULE, "Linear"), "SOLVER.LR_SCHEDULER_NAME Linear"),
        ((SCHEDULE, "WarmupMultiStepLR", "SOLVER.STEPS", "(6,)"), r"SOLVER.STEPS \(6,\)"),
        (("SOLVER.IMS_PER_BATCH", 2, WORLD_SIZE, 3), f"IMS_PER_BATCH is 2; .*{WORLD_SIZE} 3"),
    ],
)
def test_settings_that_the_trainer_refuses(scenes, tmp_path, opts, words):
    with pytest.raises(IONError, match=words):
        IONTrainer(make_config(scenes, tmp_path, *opts))


SHORTER = [
    ("SOLVER.MAX_ITER", 2, SCHEDULE, "WarmupCosineLR"),
    ("SOLVER.MAX_ITER", 2, SCHEDULE, "WarmupMultiStepLR", "SOLVER.STEPS", "()"),
]


@pytest.mark.parametrize("opts", [*SHORTER, ()], ids=["cosine", "multi-step", "stages"])
def test_resuming_with_fewer_iterations_than_are_done(
    scenes, tmp_path, no_test, caplog, opts, monkeypatch
):
    run(make_config(scenes, tmp_path, "SOLVER.MAX_ITER", 4))
    cfg = make_config(scenes, tmp_path, *opts)
    if not opts:  # on the command line, MAX_ITER has no place beside them
        cfg.defrost()
        cfg.SOLVER.STAGES = [{"MAX_ITER": 1, "BASE_LR": 0.01}] * 2
        cfg.freeze()
    with pytest.raises(IONError, match="has done 4 .*SOLVER.MAX_ITER is 2") as error:
        run(cfg, resume=True)
    assert str(error.value).startswith(str(tmp_path / "model_final.pth has done"))
    with pytest.raises(IONError, match="SOLVER.MAX_ITER is 2"):
        ion_d2.build_trainer(cfg, resume=True)
    assert run(cfg).iter == 2  # another training
    monkeypatch.setattr(logging.getLogger("ion_d2"), "propagate", True)
    tested = []
    monkeypatch.setattr(IONTrainer, "test", classmethod(lambda *a: tested.append(1) or {}))
    run(cfg, resume=True)
    assert tested == [1] and "SOLVER.MAX_ITER is 2" in caplog.text


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (("MODEL.SEG_REGULARIZER_ON", True), "is not of this model.*sem_seg_head"),
        (("MODEL.CONTEXT.HIDDEN_DIM", 8), "is not of this model"),
        (("MODEL.BACKBONE.FREEZE_AT", 2), "is of a training with other parameters"),
    ],
)
def test_resuming_another_model_is_one_sentence(scenes, tmp_path, no_test, opts, words):
    run(make_config(scenes, tmp_path, "SOLVER.MAX_ITER", 1))
    with pytest.raises(IONError, match=f"model_final.pth {words}"):
        run(make_config(scenes, tmp_path, "SOLVER.MAX_ITER", 2, *opts), resume=True)


@pytest.mark.parametrize("state", [{}, {"iteration": "x"}, {"iteration": 0}, None])
def test_a_damaged_state_of_training_is_one_sentence(scenes, tmp_path, no_test, state):
    run(make_config(scenes, tmp_path, "SOLVER.MAX_ITER", 1))
    file = tmp_path / "model_final.pth"
    torch.save({**torch.load(file), "trainer": state}, file)
    words = "it holds no optimizer" if state == {"iteration": 0} else "resume with that"
    told = f"model_final.pth is of a training with other parameters.*{words}"
    with pytest.raises(IONError, match=told):
        run(make_config(scenes, tmp_path, "SOLVER.MAX_ITER", 2), resume=True)


@pytest.mark.parametrize("iterations", [4, 100])
@pytest.mark.parametrize("opts", SHORTER, ids=["cosine", "multi-step"])
def test_a_warm_up_as_long_as_the_training_is_told(scenes, tmp_path, caplog, opts, iterations):
    cfg = make_config(scenes, tmp_path, *opts, "SOLVER.MAX_ITER", 4)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], cfg.SOLVER.BASE_LR)
    # With steps alone the rate is three quarters of its value by the last iteration.
    for warmup, told in ((iterations, "WarmupCosineLR" in opts), (1, False)):
        caplog.clear()
        cfg.defrost()
        cfg.SOLVER.WARMUP_ITERS = warmup
        IONTrainer.build_lr_scheduler(cfg, optimizer)
        assert ("SOLVER.WARMUP_ITERS" in caplog.text and "SOLVER.MAX_ITER" in caplog.text) == told


def test_a_schedule_that_would_fail_in_the_last_iteration_is_told(scenes, tmp_path, monkeypatch):
    """That of WarmupStepWithFixedGammaLR, on Detectron2's main branch."""
    steps = StepWithFixedGammaParamScheduler(1.0, 2, 0.1, num_updates=6)
    build = classmethod(lambda cls, cfg, optimizer: LRMultiplier(optimizer, steps, 6))
    monkeypatch.setattr(DefaultTrainer, "build_lr_scheduler", build)
    with pytest.raises(IONError, match="no rate at its end.*SOLVER.LR_SCHEDULER_NAME"):
        IONTrainer(make_config(scenes, tmp_path, "SOLVER.MAX_ITER", 6))


def test_memory_holds_the_latest_figures_alone(scenes, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer_module, "_KEPT", 3)
    opts = ("SOLVER.MAX_ITER", 5, "DATASETS.TEST", "()")
    losses = run(make_config(scenes, tmp_path, *opts)).storage.history("total_loss")
    assert [iteration for _, iteration in losses.values()] == [2, 3, 4]


def test_a_schedule_for_more_processes_is_scaled(scenes, tmp_path):
    """As Detectron2 does: half the processes, half the batch and rate, twice the steps."""
    opts = ("SOLVER.IMS_PER_BATCH", 4, "SOLVER.MAX_ITER", 3, "SOLVER.BASE_LR", 0.02, WORLD_SIZE, 2)
    solver = IONTrainer(make_config(scenes, tmp_path, *opts)).cfg.SOLVER
    assert (solver.IMS_PER_BATCH, solver.MAX_ITER, solver.BASE_LR) == (2, 6, 0.01)
