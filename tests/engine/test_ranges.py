"""Values that a training cannot run with are told by key, before it starts."""

from pathlib import Path

import numpy as np
import pytest
from model_helpers import SMALL

from ion_d2.engine.ranges import check_ranges
from ion_d2.engine.setup import load_config
from ion_d2.errors import IONError
from ion_d2.value_rules import COUNT, POSITIVE, changed, check_value, value_of

NAN, INF = float("nan"), float("inf")
WRONG = {
    "SOLVER.BASE_LR": (0.0, -0.1, NAN, INF, "fast", True), "SOLVER.BIAS_LR_FACTOR": (-1.0, NAN),
    "SOLVER.MOMENTUM": (-0.1, 1.0, 2.0, NAN, "x", None), "SOLVER.WEIGHT_DECAY": (-1e-4, NAN, INF),
    "SOLVER.WEIGHT_DECAY_NORM": (-1e-4,), "SOLVER.WEIGHT_DECAY_BIAS": (-1e-4,),
    "SOLVER.GAMMA": (0.0, -0.1, NAN), "SOLVER.WARMUP_ITERS": (-1,),
    "SOLVER.STEPS": ((3, 2), (2, 2), (0, 2), (-1,), (1.5,), ("a",), (True,)),
    "SOLVER.WARMUP_FACTOR": (-0.1, NAN), "SOLVER.WARMUP_METHOD": ("cubic", ""),
    "SOLVER.AMP.PRECISION": ("half", "", "float32"), "SOLVER.IMS_PER_BATCH": (0, -2),
    "SOLVER.MAX_ITER": (0, -1, 1.5, True, 10**400), "SOLVER.CHECKPOINT_PERIOD": (0, -1),
    "SOLVER.REFERENCE_WORLD_SIZE": (-1,), "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": ("norms",),
    "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": (0.0, -1.0, NAN),
    "SOLVER.CLIP_GRADIENTS.NORM_TYPE": (0.0, NAN), "INPUT.FORMAT": ("rgb", "GRAY", ""),
    "INPUT.MIN_SIZE_TRAIN": ((), (-1,), (64.5,), 64),
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": ("", "both"), "INPUT.MAX_SIZE_TRAIN": (0, -5),
    "INPUT.MIN_SIZE_TEST": (-1, 64.5), "INPUT.MAX_SIZE_TEST": (0, -5),
    "INPUT.RANDOM_FLIP": ("both", ""), "INPUT.CROP.TYPE": ("square",),
    "INPUT.CROP.SIZE": ([0.5], [0.0, 0.5], [-1, 2], [1, 1, 1]), "MODEL.PIXEL_MEAN": ([], [NAN] * 3),
    "MODEL.PIXEL_STD": ([0.0, 1.0, 1.0], [1.0, -1.0, 1.0], ["a"] * 3), "SEED": (2**32,),
    "TEST.EVAL_PERIOD": (-1,), "TEST.DETECTIONS_PER_IMAGE": (0, -2), "TEST.AUG.MAX_SIZE": (0,),
    "TEST.AUG.MIN_SIZES": ((0,), (400, -1), ("a",)), "TEST.PRECISE_BN.NUM_ITER": (0,),
    "TEST.EXPECTED_RESULTS": ([["bbox", "AP", 1.0]], ["bbox"]), "FLOAT32_PRECISION": ("low",),
}  # fmt: skip
RIGHT = [
    ("INPUT.MIN_SIZE_TRAIN", (0,)), ("INPUT.MIN_SIZE_TEST", 0), ("INPUT.CROP.SIZE", (300, 300)),
    ("MODEL.PIXEL_MEAN", [-1.0, 0.0, 300.0]),
    ("SOLVER.MOMENTUM", 0.0), ("SOLVER.WEIGHT_DECAY", 0.0), ("SOLVER.WEIGHT_DECAY_BIAS", None),
    ("SOLVER.STEPS", ()), ("SOLVER.GAMMA", 1.0), ("SOLVER.WARMUP_ITERS", 0), ("SEED", -1),
    ("SOLVER.CLIP_GRADIENTS.NORM_TYPE", INF), ("TEST.DETECTIONS_PER_IMAGE", -1),
    ("TEST.EXPECTED_RESULTS", [["bbox", "AP", 38.5, 0.2]]),
]  # fmt: skip


@pytest.fixture
def cfg():
    return load_config("configs/ion_tiny.yaml", SMALL)


@pytest.mark.parametrize("key", WRONG)
def test_wrong_values(key, cfg):
    for value in WRONG[key]:
        with pytest.raises(IONError, match=f"^{key} is .*; it must be ") as error:
            check_ranges(changed(cfg, {key: value}))
        assert repr(value) in str(error.value)


def test_right_values(cfg):
    for key, value in RIGHT:
        assert value_of(cfg, key, cfg) is not cfg
        check_ranges(changed(cfg, {key: value}))


@pytest.mark.parametrize(
    ("key", "value"), [("SOLVER.MOMENTUM", "-1.0"), ("TEST.AUG.MIN_SIZES", "(0,)")]
)
def test_every_program_reads_its_config_so(key, value):
    with pytest.raises(IONError, match=key):
        load_config("configs/ion_tiny.yaml", [key, value])


@pytest.mark.parametrize(
    "key", ["MODEL.WEIGHTS", "OUTPUT_DIR", "SOLVER.STAGES", "DATASETS.TEST", "INPUT.MIN_SIZE_TRAIN"]
)
def test_a_key_without_a_value_is_told(tmp_path, key):
    """YAML reads nothing as None, which yacs takes for a value of any key."""
    *groups, name = key.split(".")
    text = f"{groups[0]}: {{{name}: }}\n" if groups else f"{name}:\n"
    base = f"_BASE_: '{Path('configs/ion_tiny.yaml').resolve()}'\n"
    (tmp_path / "a.yaml").write_text(base + text)
    with pytest.raises(IONError, match=f"^{key} has no value; give one"):
        load_config(str(tmp_path / "a.yaml"))


def test_paths_may_begin_at_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    opts = ["OUTPUT_DIR", "~/run", "MODEL.WEIGHTS", "~/model.pth"]
    cfg = load_config("configs/ion_tiny.yaml", opts)
    assert (cfg.OUTPUT_DIR, cfg.MODEL.WEIGHTS) == ("/home/me/run", "/home/me/model.pth")


def test_a_range_of_sizes_has_two_ends(cfg):
    cfg.defrost()
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING = (64, 80, 96), "range"
    with pytest.raises(IONError, match="INPUT.MIN_SIZE_TRAIN is .64, 80, 96."):
        check_ranges(cfg)


def test_pictures_have_as_many_channels_as_means(cfg):
    with pytest.raises(IONError, match="MODEL.PIXEL_MEAN .*INPUT.FORMAT"):
        check_ranges(changed(cfg, {"MODEL.PIXEL_MEAN": [1.0]}))


@pytest.mark.parametrize("value", [np.float32(2.5), np.int64(2), 2])
def test_numbers_of_numpy_are_numbers(value):
    check_value("KEY", value, POSITIVE)
    with pytest.raises(IONError, match="KEY is .* a whole number above 0"):
        check_value("KEY", type(value)(0), COUNT)


def test_truth_values_are_no_numbers():
    for value in (True, np.bool_(True)):
        with pytest.raises(IONError, match="a whole number"):
            check_value("KEY", value, COUNT)
