"""Every shipped config takes a training step; the keys of the contract exist."""

from pathlib import Path

import pytest
import torch
import yaml
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from model_helpers import SMALL, make_input, train_step
from refusals import refused

import ion_d2
from ion_d2 import add_ion_config
from ion_d2.engine.setup import choose_device, load_config
from ion_d2.engine.trainer import IONTrainer
from ion_d2.errors import IONError
from ion_d2.value_rules import value_of

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
CONFIGS = sorted([*ROOT.glob("configs/*.yaml"), *ROOT.glob("configs/real/*.yaml")])


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_config_takes_a_training_step(path):
    if path.parent.name == "real":
        pytest.importorskip("timm")
    opts = ["MODEL.DEVICE", "cpu", "MODEL.TIMM.WEIGHTS", ""]
    cfg = load_config(str(path), opts)
    if cfg.MODEL.ROI_HEADS.NUM_CLASSES == 0:
        opts += ["MODEL.ROI_HEADS.NUM_CLASSES", "3", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "4"]
        cfg = load_config(str(path), opts)
    torch.manual_seed(0)
    model = build_model(cfg).train()
    optimizer = IONTrainer.build_optimizer(cfg, model)
    wanted = {"labels": cfg.MODEL.SEG_REGULARIZER_ON, "proposals": cfg.MODEL.LOAD_PROPOSALS}
    losses = train_step(model, make_input(64, 96, **wanted))
    assert ("loss_sem_seg" in losses) == cfg.MODEL.SEG_REGULARIZER_ON
    before = model.roi_heads.box_head.fc7.weight.detach().clone()
    optimizer.step()
    assert not torch.equal(before, model.roi_heads.box_head.fc7.weight)


def test_configs_need_no_file_of_detectron2():
    for path in CONFIGS:
        base = yaml.safe_load(path.read_text()).get("_BASE_")
        assert base is None or (path.parent / base).is_file()


# Keys and defaults that users' configs rely on.
CONTRACT = {
    "MODEL.VGG": {"DEPTH": 16, "WIDTH_MULTIPLIER": 1.0, "NORM": "",
                  "OUT_FEATURES": ["conv3", "conv4", "conv5"]},
    "MODEL.CONTEXT": {"NAME": "IRNN", "BOTTOM_UP": "build_ion_vgg_backbone", "IN_FEATURE": "conv5",
                      "NUM_STACKS": 2, "HIDDEN_DIM": 512, "OUT_DIM": 512, "TRANSITION": "full",
                      "DROPOUT": 0.25},
    "MODEL.SKIP_POOLER": {"NORM": "roi", "SCALE_INIT": 1000.0, "LEARN_SCALE": True,
                          "OUT_CHANNELS": 512},
    "MODEL": {"SEG_REGULARIZER_ON": False, "DROPOUT_ON": True},
    "TEST.BOX_REFINEMENT": {"ENABLED": False, "ROUNDS": 2, "VOTE": True, "VOTE_IOU": 0.5},
    "TEST": {"FLIP_AVERAGING": False},
    "SOLVER": {"STAGES": [], "IMS_PER_PASS": 0},
}  # fmt: skip


def test_keys_and_defaults_of_the_contract():
    cfg = get_cfg()
    add_ion_config(cfg)
    for node, defaults in CONTRACT.items():
        assert defaults.items() <= value_of(cfg, node).items()
    cfg.MODEL.VGG.DEPTH = 19
    cfg.MODEL.CONTEXT.PARTS.append("Conv")
    add_ion_config(cfg)  # again, which changes nothing
    assert cfg.MODEL.VGG.DEPTH == 19 and cfg.MODEL.CONTEXT.PARTS == ["Conv"]
    fresh = get_cfg()
    add_ion_config(fresh)
    assert fresh.MODEL.CONTEXT.PARTS == []


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (["MODEL.CONTEXT.DROPUOT", "0"], "MODEL.CONTEXT.DROPUOT.*MODEL.CONTEXT.DROPOUT"),
        (["MODEL.VGG.DEPTH", "deep"], "not a valid config"),
        (["MODEL.VGG.DEPTH"], "pairs KEY VALUE"),
        (
            ["MODEL.VGG", "3"],
            "MODEL.VGG is a group of config keys; give one, such as MODEL.VGG.D",
        ),
        (["MODEL.VGG.DEPTH.X", "3"], "no config key MODEL.VGG.DEPTH.X: MODEL.VGG.DEPTH is a key"),
        (["MODEL.VGG.DEPTH", "16", "--resume", "x"], "Put --resume before"),
    ],
)
def test_bad_overrides_are_one_sentence(opts, words):
    with pytest.raises(IONError, match=words):
        load_config("configs/ion_tiny.yaml", opts)


BAD_FILES = {
    "a key that there is not": (b"SOLVER: {BASELR: 1}\n", "Did you mean SOLVER.BASE_LR?"),
    "a value of another type": (b"SOLVER: {BASE_LR: fast}\n", "SOLVER.BASE_LR"),
    "no YAML": (b"SOLVER: {", "cannot be read as YAML"),
    "a list": (b"- 1\n", "must hold KEY: VALUE lines"),
    "nothing": (b"", "must hold KEY: VALUE lines"),
    "words": (b"just words", "must hold KEY: VALUE lines"),
    "bytes": (b"\xff\xfe\0", "a.yaml"),
    "another encoding": (b"MODEL: {WEIGHTS: '\xfa'}\n", "utf-8"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_file_that_is_no_config_is_told(tmp_path, kind):
    """tests/hostile_texts.py has bases that cannot be, and code."""
    content, words = BAD_FILES[kind]
    (tmp_path / "a.yaml").write_bytes(content)
    with refused("a.yaml", words):
        load_config(str(tmp_path / "a.yaml"))


def test_device_falls_back_to_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("cuda") == choose_device("cuda:1") == "cpu"
    assert choose_device("cpu") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda") == "cuda" and choose_device("cuda:1") == "cuda:1"
    with pytest.raises(IONError, match="MODEL.DEVICE is 'cuda:2'.*2 GPUs are here"):
        choose_device("cuda:2")


@pytest.mark.parametrize(
    "device", ["meta", "xla", "vulkan", "hpu", "privateuseone", "nonsense", "", "CPU", "cuda:x"]
)
def test_devices_that_are_not_here_are_named(device):
    with pytest.raises(IONError, match=f"MODEL.DEVICE is '{device}'"):
        load_config("configs/ion_tiny.yaml", ["MODEL.DEVICE", repr(device)])


def test_a_config_that_was_changed_by_hand_is_looked_at_again():
    cfg = load_config("configs/ion_tiny.yaml", [*SMALL, "MODEL.ROI_HEADS.NUM_CLASSES", "2"])
    cfg.defrost()
    cfg.MODEL.DEVICE = "meta"
    for build in (ion_d2.build_model, IONTrainer):
        with pytest.raises(IONError, match="MODEL.DEVICE is 'meta'"):
            build(cfg)


def test_the_lists_of_photographs_are_disjoint_and_of_the_documented_size():
    train, val, quarter = (
        (ROOT / f"configs/real/voc2012_animals_{split}.txt").read_text().split()
        for split in ("train", "val", "val_quarter")
    )
    assert [len(set(ids)) for ids in (train, val, quarter)] == [1697, 1729, 433]
    assert not set(train) & set(val)
    assert quarter == val[::4]
    # The models are of all of VOC's classes, one of which no picture has.
    classes = (ROOT / "configs/real/voc2012_animals_classes.txt").read_text().split()
    assert len(classes) == 20 and classes == sorted(classes) and "aeroplane" in classes
