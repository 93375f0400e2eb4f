"""Short trainings on the synthetic scenes."""

import os
import signal

import torch
from detectron2.engine import HookBase
from model_helpers import SMALL

from ion_d2.data.catalog import ensure_registered
from ion_d2.engine.setup import load_config
from ion_d2.engine.steps import unwrap_distributed
from ion_d2.engine.trainer import IONTrainer


def make_config(scenes, output, *opts):
    names = (f"voc:{scenes}:trainval", f"voc:{scenes}:test")
    opts = [
        "DATASETS.TRAIN", f"('{names[0]}',)", "DATASETS.TEST", f"('{names[1]}',)",
        "OUTPUT_DIR", output, "SOLVER.MAX_ITER", 6, "SOLVER.CHECKPOINT_PERIOD", 100,
        "INPUT.MIN_SIZE_TRAIN", "(96,)", "INPUT.MIN_SIZE_TEST", 96,
        "MODEL.ROI_HEADS.NUM_CLASSES", 2, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 3,
        *opts,
    ]  # fmt: skip
    cfg = load_config("configs/ion_tiny.yaml", [*SMALL, *map(str, opts)])
    ensure_registered(names)
    return cfg


class Record(HookBase):
    """Notes of each step what it moves, its rate and its losses, and may send a signal in one."""

    def __init__(self, interrupt_at=None):
        self.moved, self.rates, self.losses, self.interrupt_at = {}, {}, {}, interrupt_at

    def parameters(self):
        named = unwrap_distributed(self.trainer.model).named_parameters()
        return {name: parameter.detach().clone() for name, parameter in named}

    def before_train(self):
        self.start = self.parameters()

    def before_step(self):
        if self.trainer.iter == self.interrupt_at:
            os.kill(os.getpid(), signal.SIGINT)
        self.before = self.parameters()
        self.rates[self.trainer.iter] = self.trainer.optimizer.param_groups[0]["lr"]

    def after_step(self):
        step, after = self.trainer.iter, self.parameters()
        self.moved[step] = {n for n, p in self.before.items() if not torch.equal(p, after[n])}
        latest = self.trainer.storage.latest()
        self.losses[step] = {k: v[0] for k, v in latest.items() if "loss" in k}


def assert_same(found, expected):
    """Two models, or states of them, are equal bit for bit."""
    states = (x.state_dict() if isinstance(x, torch.nn.Module) else x for x in (found, expected))
    torch.testing.assert_close(*states, rtol=0, atol=0)


def run(cfg, *hooks, resume=False, seed=0):
    torch.manual_seed(seed)  # as default_setup does, for the weights' start
    trainer = IONTrainer(cfg)
    trainer.register_hooks(hooks)
    trainer.resume_or_load(resume=resume)
    trainer.train()
    return trainer
