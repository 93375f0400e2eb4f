"""The Python API, and the example notebook that uses it."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_helpers import FAST
from detectron2.config import CfgNode
from process_helpers import ROOT, run_python

import ion_d2
from ion_d2.engine import folder_lock
from ion_d2.engine.pictures import draw_detections
from ion_d2.errors import IONError

pytestmark = pytest.mark.slow

NOTEBOOK = ROOT / "docs" / "example.ipynb"


@pytest.fixture
def cfg(scenes, tmp_path):
    overrides = dict(zip(FAST[::2], FAST[1::2]))
    overrides.update({
        "DATASETS.TRAIN": [f"voc:{scenes}:trainval"], "DATASETS.TEST": (f"voc:{scenes}:test",),
        "OUTPUT_DIR": str(tmp_path), "SOLVER.MAX_ITER": 2,
    })  # fmt: skip
    return ion_d2.get_config("configs/ion_tiny.yaml", overrides)


def test_overrides_may_be_python_values():
    values = {
        "SOLVER.MAX_ITER": 7, "MODEL.CONTEXT.DROPOUT": 0.5, "INPUT.MIN_SIZE_TRAIN": [96],
        "DATASETS.TRAIN": ["a", "b"], "MODEL.SEG_REGULARIZER_ON": True, "SOLVER.BASE_LR": "0.5",
    }  # fmt: skip
    cfg = ion_d2.get_config(Path("configs/ion_tiny.yaml"), values)
    assert isinstance(cfg, CfgNode) and cfg.is_frozen()
    assert (cfg.SOLVER.MAX_ITER, cfg.MODEL.CONTEXT.DROPOUT, cfg.SOLVER.BASE_LR) == (7, 0.5, 0.5)
    assert tuple(cfg.DATASETS.TRAIN) == ("a", "b") and tuple(cfg.INPUT.MIN_SIZE_TRAIN) == (96,)
    assert cfg.MODEL.SEG_REGULARIZER_ON is True


def test_train_and_detect_in_three_lines(cfg, tmp_path):
    before = cfg.dump()
    trainer = ion_d2.build_trainer(cfg)
    trainer.train()
    predictor = ion_d2.build_predictor(cfg, tmp_path / "model_final.pth")
    assert predictor.class_names == ["cross", "triangle"]
    assert cfg.dump() == before
    assert trainer.cfg.MODEL.ROI_HEADS.NUM_CLASSES == 2
    image = np.zeros((80, 96, 3), np.uint8)
    found = predictor(image)["instances"]
    assert found.image_size == (80, 96)
    drawing = draw_detections(image, found, predictor.class_names, panel_size=192)
    assert drawing.size[0] >= 192
    # The folder is one that train_net.py --eval-only and demo.py take.
    again = ion_d2.get_config(tmp_path / "config.yaml")
    assert again.MODEL.ROI_HEADS.NUM_CLASSES == 2
    assert torch.equal(
        ion_d2.build_predictor(again, tmp_path / "model_final.pth")(image)["instances"].scores,
        found.scores,
    )


def test_same_seed_same_weights_and_resume(cfg, tmp_path):
    weights = []
    for _ in range(2):
        trainer = ion_d2.build_trainer(cfg)
        weights.append(trainer.model.roi_heads.box_head.fc6.weight.clone())
    assert torch.equal(*weights)
    trainer.train()
    assert ion_d2.build_trainer(cfg).start_iter == 0
    assert ion_d2.build_trainer(cfg, resume=True).start_iter == 2


def test_a_trainer_that_could_not_be_built_leaves_its_folder_free(cfg, tmp_path):
    (tmp_path / "config.yaml").write_text("of a training")
    cfg.defrost()
    cfg.MODEL.WEIGHTS, cfg.SEED = "gone.pth", 5
    with pytest.raises(IONError, match="gone.pth is not a file"):
        ion_d2.build_trainer(cfg)
    assert (tmp_path / "config.yaml").read_text() == "of a training"
    assert os.path.realpath(tmp_path) not in folder_lock._claimed


def test_model_takes_its_classes_from_the_data(cfg):
    model = ion_d2.build_model(cfg)
    assert model.roi_heads.num_classes == 2 and model.training
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 0


def test_model_with_the_segmentation_loss_alone_in_want_of_classes(cfg):
    cfg.defrost()
    cfg.MODEL.ROI_HEADS.NUM_CLASSES, cfg.MODEL.SEG_REGULARIZER_ON = 2, True
    assert ion_d2.build_model(cfg).sem_seg_head.deconv.out_channels == 3


def test_the_classes_of_a_retinanet_come_from_the_data(cfg, monkeypatch):
    cfg.defrost()
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.ROI_HEADS.NUM_CLASSES = "RetinaNet", 2
    cfg.MODEL.RETINANET.NUM_CLASSES = 0
    monkeypatch.setattr("ion_d2.engine.setup.build_model", lambda cfg: cfg)
    assert ion_d2.build_model(cfg).MODEL.RETINANET.NUM_CLASSES == 2


def test_trainer_sets_what_detectron2s_setup_sets(cfg, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    before = torch.get_float32_matmul_precision()
    cfg.defrost()
    cfg.CUDNN_BENCHMARK, cfg.FLOAT32_PRECISION = True, "medium"
    try:
        ion_d2.build_trainer(cfg)
        assert torch.get_float32_matmul_precision() == "medium"
        assert torch.backends.cudnn.allow_tf32
        cfg.FLOAT32_PRECISION = "highest"
        ion_d2.build_model(cfg)
        assert not torch.backends.cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.backends.cudnn.benchmark


def changed(cfg, **values):
    cfg = cfg.clone()
    cfg.defrost()
    cfg.update(values)
    return cfg


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda cfg: ion_d2.build_trainer(changed(cfg, OUTPUT_DIR="/dev/null/x")),
            "folder /dev/null/x cannot be made .*choose another OUTPUT_DIR",
        ),
        (lambda cfg: ion_d2.get_config("gone.yaml"), "gone.yaml does not exist"),
        (lambda cfg: ion_d2.get_config("configs/ion_tiny.yaml", {"NO.KEY": 1}), "NO.KEY"),
        (lambda cfg: ion_d2.build_predictor(cfg), "MODEL.WEIGHTS is empty"),
        (lambda cfg: ion_d2.build_predictor(cfg, "gone.pth"), "gone.pth is not a file"),
    ],
)
def test_bad_input_is_one_sentence(cfg, call, words):
    with pytest.raises(IONError, match=words):
        call(cfg)


def code_cells():
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_notebook_was_executed_and_is_light():
    """Kept with its outputs: no error, no machine's paths, small pictures."""
    outputs = [output for cell in code_cells() for output in cell["outputs"]]
    assert not any(output["output_type"] == "error" for output in outputs)
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 2
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text) < 400_000
    # A slash after a quote, a space, a bracket or the like starts an absolute path.
    assert not re.search(r"""["'\s(<\[=:,]/\w+/""", text)


def test_notebook_runs(tmp_path):
    """Its cells, in order, as a program of their own, with fewer iterations."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    program = "\n".join("".join(cell["source"]) for cell in code_cells())
    assert program.count("iterations = 300") == 1
    program = program.replace("iterations = 300", "iterations = 4")
    program += "\nassert max(axes.lines[0].get_xdata()) == 3\n"  # nothing of a run before
    metrics = tmp_path / "output/example/run/metrics.json"
    metrics.parent.mkdir(parents=True)
    metrics.write_text(json.dumps({"iteration": 19, "total_loss": 9.0}) + "\n")
    done = run_python("-c", program, cwd=tmp_path, MPLBACKEND="Agg")
    assert done.returncode == 0, done.stderr
    assert "mean" in done.stdout
    assert (tmp_path / "output/example/run/model_final.pth").is_file()
