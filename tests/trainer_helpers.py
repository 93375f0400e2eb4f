"""Short trainings on the synthetic scenes."""

import torch
from model_helpers import SMALL

from ion_d2.data.catalog import ensure_registered
from ion_d2.engine.setup import load_config
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


def run(cfg, *hooks, resume=False):
    torch.manual_seed(0)  # as default_setup does, for the weights' start
    trainer = IONTrainer(cfg)
    trainer.register_hooks(hooks)
    trainer.resume_or_load(resume=resume)
    trainer.train()
    return trainer
