"""Bases from Detectron2's model zoo in YAML files."""

import detectron2
import pytest
from detectron2 import model_zoo
from detectron2.config import CfgNode, get_cfg

from ion_d2.config import add_ion_config
from ion_d2.engine import config_file
from ion_d2.engine.config_file import merge_config_file, packaged_configs
from ion_d2.engine.setup import load_config
from ion_d2.errors import IONError

NAME = "COCO-InstanceSegmentation/mask_rcnn_R_101_FPN_3x.yaml"


def reference():
    """What Detectron2 itself makes of its config."""
    cfg = get_cfg()
    add_ion_config(cfg)
    cfg.merge_from_file(model_zoo.get_config_file(NAME))
    return cfg


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def test_a_packaged_config_by_its_name():
    named, found = f"model_zoo:{NAME}", model_zoo.get_config_file(NAME)
    assert load_config(named, ["MODEL.DEVICE", "cuda"]).MODEL == load_config(found).MODEL


def test_a_packaged_config_may_compute():  # RetinaNet's anchors; a stranger's may not
    name = "COCO-Detection/retinanet_R_50_FPN_1x.yaml"
    cfg = get_cfg()
    merge_config_file(cfg, model_zoo.get_config_file(name))
    assert len(cfg.MODEL.ANCHOR_GENERATOR.SIZES[0]) == 3


@pytest.mark.parametrize("base", [f'"model_zoo:{NAME}"', f'["model_zoo:{NAME}"]'])
def test_a_packaged_base(tmp_path, base):
    cfg = reference()
    merge_config_file(cfg, write(tmp_path / "a.yaml", f"_BASE_: {base}\nSEED: 7\n"))
    expected = reference()
    expected.SEED = 7
    assert cfg.dump() == expected.dump() and type(cfg) is CfgNode


def test_packaged_and_own_bases_in_order(tmp_path):
    """Of several bases later ones win, and relative paths start at the file that names them."""
    write(tmp_path / "sub/own.yaml", "_BASE_: ../deep.yaml\nSEED: 3\n")
    write(tmp_path / "deep.yaml", "SEED: 1\nMODEL:\n  RESNETS:\n    DEPTH: 18\n")
    text = f'_BASE_: ["model_zoo:{NAME}", "sub/own.yaml"]\nVIS_PERIOD: 9\n'
    cfg = load_config(write(tmp_path / "a.yaml", text))
    assert (cfg.MODEL.RESNETS.DEPTH, cfg.SEED, cfg.VIS_PERIOD) == (18, 3, 9)
    assert cfg.MODEL.FPN.IN_FEATURES == ["res2", "res3", "res4", "res5"]


def test_a_folder_that_is_called_like_the_prefix(tmp_path):
    write(tmp_path / "my_model_zoo:x/base.yaml", "SEED: 5\n")
    assert load_config(write(tmp_path / "my_model_zoo:x/a.yaml", "_BASE_: base.yaml")).SEED == 5


def test_files_of_an_old_version_are_upgraded(tmp_path):
    """As in Detectron2: version 1 named keys differently."""
    text = "VERSION: 1\nMODEL:\n  WEIGHT: here.pkl\n"
    assert load_config(write(tmp_path / "old.yaml", text)).MODEL.WEIGHTS == "here.pkl"


@pytest.mark.parametrize("form", ["{}", "_BASE_"])
def test_an_unknown_name_is_told_with_a_near_one(tmp_path, form):
    wrong = "model_zoo:COCO-Detection/faster_rcnn_R_50_FPN_2x.yaml"
    path = wrong if form == "{}" else write(tmp_path / "a.yaml", f'_BASE_: "{wrong}"')
    with pytest.raises(IONError, match="R_50_FPN_2x.yaml is not.*Did you mean.*FPN_[13]x"):
        load_config(path)


def test_an_installation_without_its_configs(tmp_path, monkeypatch):
    monkeypatch.setattr(config_file, "MODEL_ZOO", tmp_path / "gone")
    with pytest.raises(IONError, match="came without its configs"):
        load_config(f"model_zoo:{NAME}")


def test_the_names_of_packaged_configs_are_those_that_detectron2_finds():
    names = packaged_configs()
    assert NAME in names and detectron2.__name__ not in names[0]
    for name in names[::20]:
        assert model_zoo.get_config_file(name).endswith(name)
