"""What is evaluated, and where: images left out, fields that lack, folders of several sets."""

import json

import pytest
import torch
from coco_json import BLUE, RED, write_coco
from detectron2.data import DatasetCatalog
from detectron2.structures import Boxes, Instances
from model_helpers import small_config

from ion_d2.data.catalog import ensure_registered
from ion_d2.data.run_images import spread_evenly
from ion_d2.errors import IONError
from ion_d2.evaluation import build_evaluators, evaluation_folder

pytestmark = pytest.mark.usefixtures("catalogs")


@pytest.fixture
def coco(tmp_path):
    images = [[(kind, 8 * n + 8, 10, 30, None)] for n, kind in enumerate((RED, BLUE, RED, BLUE))]
    return write_coco(tmp_path, *images)


def config(name, output, *opts):
    test = ("DATASETS.TEST", f"('{name}',)", "OUTPUT_DIR", output, "TEST.NUM_PICTURES", 0)
    ensure_registered([name])
    return small_config(*test, *opts)


def evaluate(cfg, records):
    """The figures of the ground truth as detections."""
    evaluators = build_evaluators(cfg, cfg.DATASETS.TEST[0])
    evaluators.reset()
    for record in records:
        x, y, width, height = record["annotations"][0]["bbox"]
        found = Instances((record["height"], record["width"]))
        found.pred_boxes = Boxes(torch.tensor([[x, y, x + width, y + height]]))
        found.scores = torch.ones(1)
        found.pred_classes = torch.tensor([record["annotations"][0]["category_id"]])
        evaluators.process([record], [{"instances": found}])
    return evaluators.evaluate()


def test_pictures_left_out_are_not_missed(coco, tmp_path):
    (tmp_path / "pictures" / "2.png").write_bytes(b"")
    cfg = config(coco, tmp_path / "out", "INPUT.SKIP_UNREADABLE", True)
    records = [r for r in DatasetCatalog.get(coco) if not r["file_name"].endswith("2.png")]
    assert evaluate(cfg, records)["bbox"]["AP"] == pytest.approx(100)


@pytest.mark.parametrize("field", ["iscrowd", "area"])
def test_files_may_lack_what_pycocotools_asks_for(coco, tmp_path, field):
    content = json.loads((tmp_path / "all.json").read_text())
    for annotation in content["annotations"]:
        del annotation[field]
    (tmp_path / "all.json").write_text(json.dumps(content))
    figures = evaluate(config(coco, tmp_path / "out"), DatasetCatalog.get(coco))["bbox"]
    # 30 x 30 pixels are small for COCO.
    assert figures["AP"] == pytest.approx(100) and figures["APs"] == pytest.approx(100)


def test_segmentation_is_refused_where_it_is_not_evaluated(coco, tmp_path):
    cfg = config(coco, tmp_path, "TEST.SEM_SEG", True, "MODEL.SEG_REGULARIZER_ON", True)
    with pytest.raises(IONError, match="TEST.SEM_SEG is True.*COCO's format"):
        build_evaluators(cfg, coco)


def test_several_sets_never_share_a_folder(tmp_path):
    long = "voc:" + "x/" * 200
    names = ["voc:a/b:test", "voc:a_b:test", "voc:a b:test", f"{long}1:test", f"{long}2:test"]
    cfg = small_config("DATASETS.TEST", f"{tuple(names)}", "OUTPUT_DIR", tmp_path)
    folders = [evaluation_folder(cfg, name) for name in names]
    assert len(set(folders)) == len(names)
    assert [folder.removeprefix(f"{tmp_path}/") for folder in folders[:3]] == [
        "voc_a_b_test",
        "voc_a_b_test_2",
        "voc_a_b_test_3",
    ]
    assert all(len(folder.removeprefix(f"{tmp_path}/")) < 100 for folder in folders)


@pytest.mark.parametrize(("number", "count"), [(72, 4), (47, 24), (3, 24), (1, 1), (0, 4)])
def test_images_are_spread_from_the_first_to_the_last(number, count):
    chosen = spread_evenly(range(number), count)
    assert len(chosen) == min(number, count) == len(set(chosen))
    if number and count > 1:
        assert (chosen[0], chosen[-1]) == (0, number - 1)
        steps = [b - a for a, b in zip(chosen, chosen[1:])]
        assert not steps or max(steps) - min(steps) <= 1
