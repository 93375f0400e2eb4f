"""Values of SOLVER, INPUT and TEST with which a training fails, or would not do what it says."""

from __future__ import annotations

from detectron2.config import CfgNode

from ..errors import IONError
from ..value_rules import (
    BELOW_1,
    COUNT,
    COUNT_OR_0,
    NOT_NEGATIVE,
    NUMBER,
    POSITIVE,
    Rule,
    check_rules,
    one_of,
    several,
)

# INPUT.FORMAT -> channels of a picture.
CHANNELS = {"BGR": 3, "RGB": 3, "L": 1}


_RULES: dict[str, Rule] = {
    "SOLVER.MAX_ITER": COUNT,
    "SOLVER.IMS_PER_BATCH": COUNT,
    "SOLVER.IMS_PER_PASS": COUNT_OR_0,
    "SOLVER.SKIP_NON_FINITE": COUNT_OR_0,
    "SOLVER.EMA_DECAY": BELOW_1,
    "SOLVER.REFERENCE_WORLD_SIZE": COUNT_OR_0,
    "SOLVER.CHECKPOINT_PERIOD": COUNT,
    "SOLVER.BASE_LR": POSITIVE,
    "SOLVER.BASE_LR_END": NOT_NEGATIVE,
    "SOLVER.BIAS_LR_FACTOR": NOT_NEGATIVE,
    "SOLVER.MOMENTUM": BELOW_1,
    "SOLVER.WEIGHT_DECAY": NOT_NEGATIVE,
    "SOLVER.WEIGHT_DECAY_NORM": NOT_NEGATIVE,
    "SOLVER.WEIGHT_DECAY_BIAS": (
        lambda value: value is None or NOT_NEGATIVE[0](value),
        "at least 0, or None to be WEIGHT_DECAY",
    ),
    "SOLVER.GAMMA": POSITIVE,
    "SOLVER.STEPS": (
        lambda values: all(map(COUNT[0], values)) and list(values) == sorted(set(values)),
        "rising iterations above 0, such as (60000, 80000)",
    ),
    "SOLVER.NUM_DECAYS": COUNT,
    "SOLVER.WARMUP_FACTOR": NOT_NEGATIVE,
    "SOLVER.WARMUP_ITERS": COUNT_OR_0,
    "SOLVER.WARMUP_METHOD": one_of("linear", "constant"),
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": one_of("norm", "value"),
    "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": POSITIVE,
    "SOLVER.CLIP_GRADIENTS.NORM_TYPE": (lambda value: value > 0, "above 0; .inf is the maximum"),
    "SOLVER.AMP.PRECISION": one_of("float16", "bfloat16"),
    "INPUT.FORMAT": one_of(*CHANNELS),
    "INPUT.MIN_SIZE_TRAIN": several(COUNT_OR_0),  # 0 leaves pictures as large as they are
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": one_of("choice", "range"),
    "INPUT.MAX_SIZE_TRAIN": COUNT,
    "INPUT.MIN_SIZE_TEST": COUNT_OR_0,
    "INPUT.MAX_SIZE_TEST": COUNT,
    "INPUT.RANDOM_FLIP": one_of("horizontal", "vertical", "none"),
    "INPUT.CROP.TYPE": one_of("relative_range", "relative", "absolute", "absolute_range"),
    "INPUT.CROP.SIZE": several(POSITIVE, 2),
    "MODEL.PIXEL_MEAN": several(NUMBER),
    "MODEL.PIXEL_STD": several(POSITIVE),
    "FLOAT32_PRECISION": one_of("", "highest", "high", "medium"),
    "SEED": (lambda value: value < 2**32, "below 2**32; one below 0 is drawn at random"),
    "DATALOADER.NUM_WORKERS": COUNT_OR_0,
    "DISTRIBUTED.TIMEOUT": POSITIVE,
    "TEST.EVAL_PERIOD": COUNT_OR_0,
    "TEST.NUM_PICTURES": COUNT_OR_0,
    "TEST.PATIENCE": (COUNT_OR_0[0], "at least 0, which never stops"),
    "TEST.DETECTIONS_PER_IMAGE": (lambda value: value >= 1 or value == -1, "above 0, or -1: all"),
    "TEST.AUG.MIN_SIZES": (lambda values: all(map(COUNT[0], values)), f"a list, each {COUNT[1]}"),
    "TEST.AUG.MAX_SIZE": COUNT,
    "TEST.PRECISE_BN.NUM_ITER": COUNT,
    "TEST.EXPECTED_RESULTS": (
        lambda values: all(isinstance(v, (list, tuple)) and len(v) == 4 for v in values),
        "a list of [task, metric, value, tolerance], such as [['bbox', 'AP', 38.5, 0.2]]",
    ),
}


def check_ranges(cfg: CfgNode) -> None:
    """Raise ``IONError`` for values that Detectron2 or PyTorch would fail on, or misunderstand."""
    check_rules(cfg, _RULES)
    channels = CHANNELS[cfg.INPUT.FORMAT]
    for name in ("PIXEL_MEAN", "PIXEL_STD"):
        if len(values := cfg.MODEL[name]) != channels:
            raise IONError(
                f"MODEL.{name} has {len(values)} numbers ({values}), but INPUT.FORMAT is "
                f"{cfg.INPUT.FORMAT!r}, which has {channels}; give one number a channel."
            )
    if cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING == "range" and len(cfg.INPUT.MIN_SIZE_TRAIN) != 2:
        raise IONError(
            f"INPUT.MIN_SIZE_TRAIN is {cfg.INPUT.MIN_SIZE_TRAIN!r}; give the least and the largest "
            "size, or set INPUT.MIN_SIZE_TRAIN_SAMPLING to 'choice'."
        )
