"""Values of SOLVER, INPUT and TEST with which a training fails, or would not do what it says."""

from __future__ import annotations

import math
from typing import Any

from detectron2.config import CfgNode

from ..errors import IONError
from ..modeling.model_values import Rule, check_rules

# INPUT.FORMAT -> channels of a picture.
CHANNELS = {"BGR": 3, "RGB": 3, "L": 1}


def _number(least: float, *, open_: bool = False) -> Rule:
    """Finite numbers from ``least``, which itself is left out if ``open_``."""

    def fits(value: Any) -> bool:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and math.isfinite(value) and (value > least if open_ else value >= least)

    return fits, f"a number {'above' if open_ else 'of at least'} {least:g}"


def _integer(least: int) -> Rule:
    fits = _number(least)[0]
    return lambda value: isinstance(value, int) and fits(value), f"at least {least}"


def _one_of(*names: str) -> Rule:
    return names.__contains__, f"one of {', '.join(map(repr, names))}"


def _each(rule: Rule) -> Rule:
    return lambda values: all(map(rule[0], values)), f"a list of integers, each {rule[1]}"


def _rising_integers(values: Any) -> bool:
    integers = all(isinstance(v, int) and not isinstance(v, bool) and v > 0 for v in values)
    return integers and list(values) == sorted(set(values))


def _expected_results(values: Any) -> bool:
    return all(isinstance(v, (list, tuple)) and len(v) == 4 for v in values)


def _numbers(rule: Rule, count: int | None = None) -> Rule:
    """As many numbers of a rule as wanted, or any number of them but none."""

    def fit(values: Any) -> bool:
        return len(values) == (count or max(len(values), 1)) and all(map(rule[0], values))

    return fit, f"{count or 'one or more'} numbers, each {rule[1].removeprefix('a number ')}"


_POSITIVE, _NOT_NEGATIVE = _number(0, open_=True), _number(0)
_COUNT, _PERIOD = _integer(1), _integer(0)
_RULES: dict[str, Rule] = {
    "SOLVER.MAX_ITER": _COUNT,
    "SOLVER.IMS_PER_BATCH": _COUNT,
    "SOLVER.IMS_PER_PASS": _PERIOD,
    "SOLVER.REFERENCE_WORLD_SIZE": _PERIOD,
    "SOLVER.CHECKPOINT_PERIOD": _COUNT,
    "SOLVER.BASE_LR": _POSITIVE,
    "SOLVER.BASE_LR_END": _NOT_NEGATIVE,
    "SOLVER.BIAS_LR_FACTOR": _NOT_NEGATIVE,
    "SOLVER.MOMENTUM": (lambda value: 0 <= value < 1, "at least 0 and below 1"),
    "SOLVER.WEIGHT_DECAY": _NOT_NEGATIVE,
    "SOLVER.WEIGHT_DECAY_NORM": _NOT_NEGATIVE,
    "SOLVER.WEIGHT_DECAY_BIAS": (
        lambda value: value is None or _NOT_NEGATIVE[0](value),
        "at least 0, or None to be WEIGHT_DECAY",
    ),
    "SOLVER.GAMMA": _POSITIVE,
    "SOLVER.STEPS": (_rising_integers, "rising iterations above 0, such as (60000, 80000)"),
    "SOLVER.NUM_DECAYS": _COUNT,
    "SOLVER.WARMUP_FACTOR": _NOT_NEGATIVE,
    "SOLVER.WARMUP_ITERS": _PERIOD,
    "SOLVER.WARMUP_METHOD": _one_of("linear", "constant"),
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": _one_of("norm", "value"),
    "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": _POSITIVE,
    "SOLVER.CLIP_GRADIENTS.NORM_TYPE": (lambda value: value > 0, "above 0; .inf is the maximum"),
    "SOLVER.AMP.PRECISION": _one_of("float16", "bfloat16"),
    # Color pictures in one of two orders, or gray ones.
    "INPUT.FORMAT": _one_of(*CHANNELS),
    # 0 leaves pictures as large as they are.
    "INPUT.MIN_SIZE_TRAIN": _numbers(_PERIOD),
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": _one_of("choice", "range"),
    "INPUT.MAX_SIZE_TRAIN": _COUNT,
    "INPUT.MIN_SIZE_TEST": _PERIOD,
    "INPUT.MAX_SIZE_TEST": _COUNT,
    "INPUT.RANDOM_FLIP": _one_of("horizontal", "vertical", "none"),
    "INPUT.CROP.TYPE": _one_of("relative_range", "relative", "absolute", "absolute_range"),
    "INPUT.CROP.SIZE": _numbers(_POSITIVE, 2),
    "MODEL.PIXEL_MEAN": _numbers(_number(-math.inf)),
    "MODEL.PIXEL_STD": _numbers(_POSITIVE),
    "SEED": (lambda value: value < 2**32, "below 2**32; one below 0 is drawn at random"),
    "DATALOADER.NUM_WORKERS": _PERIOD,
    "DISTRIBUTED.TIMEOUT": _POSITIVE,
    "TEST.EVAL_PERIOD": _PERIOD,
    "TEST.NUM_PICTURES": _PERIOD,
    "TEST.PATIENCE": (_PERIOD[0], "at least 0, which never stops"),
    "TEST.DETECTIONS_PER_IMAGE": (
        lambda value: value >= 1 or value == -1,
        "at least 1, or -1 for all",
    ),
    "TEST.AUG.MIN_SIZES": _each(_COUNT),
    "TEST.AUG.MAX_SIZE": _COUNT,
    "TEST.PRECISE_BN.NUM_ITER": _COUNT,
    "TEST.EXPECTED_RESULTS": (
        _expected_results,
        "a list of [task, metric, value, tolerance], such as [['bbox', 'AP', 38.5, 0.2]]",
    ),
}


def check_ranges(cfg: CfgNode) -> None:
    """Refuse values of a config that Detectron2 or PyTorch would fail on, or take for others.

    Args:
        cfg: the full config.

    Raises:
        IONError: one of them; the message names the key, the value and what it must be.
    """
    check_rules(cfg, _RULES)
    _check_channels(cfg)
    if cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING == "range" and len(cfg.INPUT.MIN_SIZE_TRAIN) != 2:
        raise IONError(
            f"INPUT.MIN_SIZE_TRAIN is {cfg.INPUT.MIN_SIZE_TRAIN!r}; give the least and the largest "
            "size, or set INPUT.MIN_SIZE_TRAIN_SAMPLING to 'choice'."
        )


def _check_channels(cfg: CfgNode) -> None:
    channels = CHANNELS[cfg.INPUT.FORMAT]
    for name in ("PIXEL_MEAN", "PIXEL_STD"):
        values = cfg.MODEL[name]
        if len(values) != channels:
            raise IONError(
                f"MODEL.{name} has {len(values)} numbers ({values}), but INPUT.FORMAT is "
                f"{cfg.INPUT.FORMAT!r}, which has {channels}; give one number a channel."
            )
