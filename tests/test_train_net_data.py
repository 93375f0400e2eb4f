"""train_net.py on each kind of dataset, from the command line to the figures."""

from __future__ import annotations

import json

import pytest
from cli_helpers import arguments, output_of, own_lines, voc_arguments
from coco_json import BLUE, RED, write_coco
from process_helpers import run_python
from voc_folder import object_xml, write_split, write_voc

pytestmark = pytest.mark.slow


def figures(folder):
    """The evaluated figures in a run's metrics.json."""
    lines = (folder / "metrics.json").read_text().splitlines()
    merged = {key: value for line in lines for key, value in json.loads(line).items()}
    return {key: value for key, value in merged.items() if key.startswith("bbox")}


def test_evaluating_the_saved_model_gives_the_figures_of_the_training(train_net, scenes, tmp_path):
    trained, again = tmp_path / "trained", tmp_path / "again"
    # Untrained scores are all alike; without a threshold there are detections to compare.
    opts = ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0, "TEST.DETECTIONS_PER_IMAGE", 10)
    assert train_net(*voc_arguments(scenes, trained, *opts, "SOLVER.MAX_ITER", 5))[0] == 0
    opts = (*opts, "MODEL.WEIGHTS", trained / "model_final.pth", "DATASETS.TRAIN", "('gone',)")
    args = voc_arguments(scenes, again, *opts, flags=["--eval-only"])
    output_of(train_net(*args))
    assert len(json.loads((trained / "detections.json").read_text())) > 10
    for name in ("voc_results.json", "detections.json"):
        assert (again / name).read_bytes() == (trained / name).read_bytes()
    assert not (again / "model_final.pth").exists()


def test_detectron2s_own_names(tmp_path):
    """Their folder is read from the environment when Detectron2 is imported."""
    boxes = {"000001": [object_xml("aeroplane", (3, 4, 30, 25))],
             "000002": [object_xml("tvmonitor", (1, 1, 20, 20)), object_xml("cow", (9, 9, 38, 28))],
             "000003": [object_xml("cow", (5, 5, 30, 22))]}  # fmt: skip
    root = write_voc(tmp_path / "VOC2007", boxes, split="trainval")
    write_split(root, "test", "000003\n")
    args = arguments("voc_2007_trainval", "voc_2007_test", tmp_path / "out")
    run = run_python(
        "train_net.py", *args, DETECTRON2_DATASETS=str(tmp_path), PYTHONWARNINGS="ignore"
    )
    assert (run.returncode, own_lines(run.stderr)) == (0, []), run.stderr
    report = json.loads((tmp_path / "out" / "voc_results.json").read_text())
    assert report["dataset"] == "voc_2007_test"
    assert len(report["classes"]) == 20
    # Classes of which there is no object have no figure.
    per_class = figures(tmp_path / "out")
    assert [key for key in per_class if key.startswith("bbox/AP50-")] == ["bbox/AP50-cow"]


def write_squares(folder, *forms):
    """A dataset in COCO's format with one red or blue square a picture; its name."""
    squares = [((RED, BLUE)[n % 2], 8 * n + 8, 10, 30, form) for n, form in enumerate(forms)]
    return write_coco(folder, *([square] for square in squares))


def test_a_packaged_config_by_its_name(train_net, scenes, tmp_path):
    small = (
        *("MODEL.WEIGHTS", "", "MODEL.RESNETS.STEM_OUT_CHANNELS", 16),
        *("MODEL.RESNETS.RES2_OUT_CHANNELS", 32, "MODEL.RESNETS.WIDTH_PER_GROUP", 8),
        *("SOLVER.IMS_PER_BATCH", 2, "DATALOADER.NUM_WORKERS", 0, "TEST.EVAL_PERIOD", 0),
    )
    args = voc_arguments(scenes, tmp_path / "out", *small)
    args[args.index("--config-file") + 1] = "model_zoo:COCO-Detection/faster_rcnn_R_50_C4_1x.yaml"
    output_of(train_net(*args))
    assert (tmp_path / "out" / "voc_results.json").is_file()


def test_coco_dataset(train_net, tmp_path):
    coco = write_squares(tmp_path, None, None, None, None)
    opts = ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0, "TEST.NUM_PICTURES", 2)
    output_of(train_net(*arguments(coco, coco, tmp_path / "out", *opts)))
    result = figures(tmp_path / "out")
    assert {"bbox/AP", "bbox/AP50", "bbox/APs", "bbox/AP-red", "bbox/AP-blue"} <= result.keys()
    found = json.loads((tmp_path / "out" / "coco_instances_results.json").read_text())
    assert {entry["category_id"] for entry in found} == {3, 7}
    assert len(list((tmp_path / "out" / "pictures").iterdir())) == 2


def test_coco_dataset_with_the_segmentation_loss_on_its_masks(train_net, tmp_path):
    coco = write_squares(tmp_path, "polygon", "runs", None, "compressed")
    args = arguments(coco, coco, tmp_path / "out", "MODEL.SEG_REGULARIZER_ON", True)
    out = output_of(train_net(*args))
    lines = (tmp_path / "out" / "metrics.json").read_text().splitlines()
    losses = [json.loads(line)["loss_sem_seg"] for line in lines if "loss_sem_seg" in line]
    assert losses and all(0 < loss < 10 for loss in losses)
    assert "Segmentation labels: 3 of 4 training images." in out
    assert "bbox/AP-red" in figures(tmp_path / "out")
