"""Reports of whole runs, of every kind, also where there is nothing to show."""

from __future__ import annotations

import json
import math

import pytest
import torch
from cli_helpers import arguments, own_lines, voc_arguments
from coco_json import BLUE, RED, write_coco
from model_helpers import SMALL
from page_checks import check_page
from trainer_helpers import make_config

from ion_d2.data.catalog import ensure_registered
from ion_d2.engine.setup import build_model, load_config
from ion_d2.engine.trainer import IONTrainer
from ion_d2.errors import IONError
from ion_d2.evaluation.tables import format_percent
from ion_lab.report import write_run_report

pytestmark = pytest.mark.slow

EVERYTHING = ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0, "TEST.DETECTIONS_PER_IMAGE", 10,
              "TEST.NUM_PICTURES", 0, "MODEL.RPN.POST_NMS_TOPK_TEST", 20)  # fmt: skip


def headings(page):
    return [data for tag, data in page.texts if tag in ("h2", "h3")]


def labels(page):
    return [data for tag, data in page.texts if tag == "p"]


def read(path):
    return check_page(path.read_text(encoding="utf-8"))


def test_a_training_is_reported_on_request(train_net, scenes, tmp_path):
    opts = (*EVERYTHING, "TEST.REPORT", True, "MODEL.SEG_REGULARIZER_ON", True, "TEST.SEM_SEG",
            True, "SOLVER.MAX_ITER", 2, "TEST.EVAL_PERIOD", 1)  # fmt: skip
    status, _, err = train_net(*voc_arguments(scenes, tmp_path, *opts))
    assert (status, own_lines(err)) == (0, [])
    page = read(tmp_path / "report.html")
    assert headings(page) == [
        "Result", "Segmentation", "Detections beside ground truth", "Best", "Worst", "Training",
        "Outside: what one cell sees", "Hidden states by direction",
        "Inside: which layers a descriptor draws on", "Scale", "Settings",
    ]  # fmt: skip
    results = json.loads((tmp_path / "voc_results.json").read_text())
    shown = [data for tag, data in page.texts if tag in ("td", "dd")]
    for entry in (*(c["11point"] for c in results["classes"].values()), results["mean"]["area"]):
        assert format_percent(entry["AP50"]) in shown
    assert format_percent(results["coco"]["APm"]) in shown
    for text in ("\u2192 right", "\u2190 left", "\u2193 down", "\u2191 up"):
        assert labels(page).count(text) == 2  # stacks
    # Three test images, each with its labels and its detections; two stacks with the image and four
    # directions each, of which the picture is a JPEG; two receptive fields.
    assert len(page.pictures()) == 2 * 3 + 2 * 5 + 2
    assert "bbox/AP" in page.text()  # both evaluations


def test_evaluation_alone_is_reported_too(train_net, scenes, tmp_path):
    _, model = small(scenes, tmp_path)
    torch.save({"model": model.state_dict()}, tmp_path / "model.pth")
    opts = (*EVERYTHING, "TEST.REPORT", True, "MODEL.WEIGHTS", tmp_path / "model.pth")
    status, _, err = train_net(*voc_arguments(scenes, tmp_path, *opts, flags=["--eval-only"]))
    assert (status, own_lines(err)) == (0, [])
    assert "no metrics.json of a training" in read(tmp_path / "report.html").text()


def test_several_test_sets_in_cocos_format(train_net, tmp_path):
    squares = [[(kind, 8, 10, 40, None)] for kind in (RED, BLUE, RED)]
    (tmp_path / "a&b").mkdir()
    coco = write_coco(tmp_path / "a&b", *squares)
    (tmp_path / "other").mkdir()
    other = write_coco(tmp_path / "other", *squares[:2])
    opts = (*EVERYTHING, "TEST.REPORT", True, "DATASETS.TEST", f"('{coco}', '{other}')")
    status, _, err = train_net(*arguments(coco, coco, tmp_path / "out", *opts))
    assert (status, own_lines(err)) == (0, [])
    page = read(tmp_path / "out" / "report.html")
    assert headings(page)[0] == f"Result: {coco}"
    assert f"Detections beside ground truth: {other}" in headings(page)
    lines = (tmp_path / "out" / "metrics.json").read_text().splitlines()
    merged = {key: value for line in lines for key, value in json.loads(line).items()}
    tiles = [data for tag, data in page.texts if tag == "dd"]
    for number, name in enumerate((coco, other)):
        keys = [f"{name}/bbox/{figure}" for figure in ("AP", "AP50", "AP75", "APs", "APm", "APl")]
        # Figures of sizes that no object has are not in metrics.json.
        expected = [format_percent(merged.get(key, math.nan)) for key in keys]
        assert tiles[6 * number : 6 * number + 6] == expected


def small(scenes, folder, *opts, config_file="configs/ion_tiny.yaml"):
    """A random model, and the config of a run that has not been."""
    cfg = make_config(scenes, folder, *EVERYTHING, *opts)
    if config_file != "configs/ion_tiny.yaml":
        known = ("MODEL.ROI_HEADS.NUM_CLASSES", 2, "DATASETS.TEST", f"('{cfg.DATASETS.TEST[0]}',)",
                 "INPUT.MIN_SIZE_TEST", 96, "OUTPUT_DIR", folder)  # fmt: skip
        cfg = load_config(config_file, [*SMALL, *map(str, (*EVERYTHING, *known, *opts))])
    torch.manual_seed(0)
    return cfg, build_model(cfg)


def test_nothing_detected(scenes, tmp_path):
    cfg, model = small(scenes, tmp_path, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 1.0)
    IONTrainer.test(cfg, model)
    page = read(tmp_path / write_run_report(cfg, model))
    assert json.loads((tmp_path / "detections.json").read_text()) == []
    assert "no class with boxes was found" in page.text()
    assert "Detections: no boxes." in {picture["alt"] for picture in page.all("img")}


def test_a_plain_detector_that_was_not_evaluated(scenes, tmp_path):
    cfg, model = small(scenes, tmp_path, config_file="configs/faster_rcnn_tiny.yaml")
    model.train()
    page = read(tmp_path / write_run_report(cfg, model, tmp_path / "own name.html"))
    assert model.training
    for sentence in (
        "was not evaluated on voc:",
        "No recurrence runs over this model's features.",
        "it pools conv5 as Detectron2 does",
        "There is no metrics.json",
    ):
        assert sentence in page.text()
    assert labels(page).count("conv5") == 1 and "context" not in labels(page)
    assert len(page.pictures()) == 1


@pytest.mark.parametrize(
    "opts, sentence",
    [
        (("MODEL.CONTEXT.NAME", "Conv", "MODEL.SKIP_POOLER.NORM", "none"), "there is no scale"),
        (("MODEL.CONTEXT.NAME", "RNN"), "\u2191 up"),
    ],
)
def test_other_contexts(scenes, tmp_path, opts, sentence):
    cfg, model = small(scenes, tmp_path, *opts)
    page = read(tmp_path / write_run_report(cfg, model, place=(0.0, 1.0)))
    assert sentence in page.text()
    assert {"conv5", "context"} <= set(labels(page))


def test_images_without_objects(tmp_path):
    name = write_coco(tmp_path, [], [])
    ensure_registered([name])
    opts = (*EVERYTHING, "DATASETS.TEST", f"('{name}',)", "OUTPUT_DIR", tmp_path / "out",
            "MODEL.ROI_HEADS.NUM_CLASSES", 2, "INPUT.MIN_SIZE_TEST", 96)  # fmt: skip
    cfg = load_config("configs/ion_tiny.yaml", [*SMALL, *map(str, opts)])
    torch.manual_seed(0)
    model = build_model(cfg)
    IONTrainer.test(cfg, model)
    assert "no labeled objects" in read(tmp_path / write_run_report(cfg, model)).text()


FOUND = '{"image_id": "test_000000", "category": "cross", "bbox": [1, 2, 3, 4], "score": 0.5}'


@pytest.mark.parametrize(
    "file, content, word",
    [
        ("detections.json", "[{", "cannot be read as JSON"),
        ("detections.json", '[{"image_id": "elsewhere", "category": "x"}]', "of another dataset"),
        ("detections.json", f"[{FOUND.replace(', 4', '')}]", "is broken or"),
        ("detections.json", "[" + FOUND.replace("0.5", '"x"') + "]", "is broken or"),
        ("detections.json", "[]", "voc_results.json is not there"),
        ("voc_results.json", "{}", "voc_results.json is not of this format .*'classes'"),
        ("voc_results.json", "[]", "voc_results.json is not of this format .*evaluate again"),
    ],
)
def test_results_of_something_else_are_refused(scenes, tmp_path, file, content, word):
    cfg, model = small(scenes, tmp_path)
    (tmp_path / "detections.json").write_text("[]")
    (tmp_path / file).write_text(content)
    with pytest.raises(IONError, match=word):
        write_run_report(cfg, model)
    assert not (tmp_path / "report.html").exists()
