"""Labels of any format by COCO's measures: always those of now; and files without labels."""

from __future__ import annotations

import json

import pytest
import torch
from box_helpers import output_of, register_dicts, run
from coco_json import RED, write_coco
from detectron2.data import DatasetCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import BoxMode
from pycocotools.coco import COCO

from ion_d2.data.catalog import ensure_registered
from ion_d2.errors import IONError
from ion_d2.evaluation import IONCOCOEvaluator

pytestmark = pytest.mark.usefixtures("catalogs")

BOX = [10.0, 10.0, 30.0, 40.0]


def register(ids=(1, 2), box=BOX, **fields):
    annotation = {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0, **fields}
    sizes = {"height": 50, "width": 60, "annotations": [annotation]}
    dicts = [{"file_name": f"{i}.jpg", "image_id": i, **sizes} for i in ids]
    register_dicts("mine", dicts, thing_classes=["a"])


def evaluate(name="mine", ids=(1, 2), kind=IONCOCOEvaluator, **kwargs):
    evaluator = kind(name, use_fast_impl=False, **kwargs)
    return run(evaluator, [{"image_id": i} for i in ids], [output_of([BOX])] * len(ids))


def test_labels_are_those_of_now_whatever_earlier_runs_left(tmp_path):
    register(box=[1.0, 1.0, 5.0, 5.0])
    assert evaluate(output_dir=str(tmp_path))["bbox"]["AP"] == 0
    assert evaluate(output_dir=str(tmp_path), kind=COCOEvaluator)["bbox"]["AP"] == 0
    assert (tmp_path / "mine_coco_format.json").is_file()  # Detectron2's evaluator left it
    assert evaluate(output_dir=str(tmp_path))["bbox"]["AP"] == 0
    register()
    assert evaluate(output_dir=str(tmp_path))["bbox"]["AP"] == pytest.approx(100)
    # In one process, Detectron2's evaluator even enters the file in the metadata.
    evaluate(output_dir=str(tmp_path), kind=COCOEvaluator)
    assert evaluate(output_dir=str(tmp_path))["bbox"]["AP"] == pytest.approx(100)


@pytest.mark.parametrize("ids", [("a", "b"), ("x/0", "0"), (0, 1), ("7", "8")])
def test_ids_of_any_kind(ids):
    register(ids)
    assert evaluate(ids=ids)["bbox"]["AP"] == pytest.approx(100)
    assert evaluate(ids=ids[:1], image_ids=ids[:1])["bbox"]["AP"] == pytest.approx(100)
    assert evaluate(ids=ids[:1])["bbox"]["AP"] < 60


def test_crowds_and_images_that_are_not_of_the_set():
    register(iscrowd=1)
    assert evaluate()["bbox"]["AP"] != evaluate()["bbox"]["AP"]  # NaN: nothing to be found
    with pytest.raises(IONError, match="no image 3 in dataset 'mine'"):
        evaluate(ids=(1, 3))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"bbox": [1, 2, 3]}, "'mine' are not dicts"),
        ({"bbox": [1, float("nan"), 3, 4]}, "dataset 'mine'.*annotation id 1.*image 1.jpg.*bbox"),
        ({"category_id": 5}, "dataset 'mine'.*category_id 5"),
        ({"category_id": None}, "'mine'"),
        ({"bbox_mode": None}, "'mine'"),
    ],
)
def test_dicts_that_are_wrong_are_told(fields, words):
    register(**fields)
    with pytest.raises(IONError, match=words) as caught:
        IONCOCOEvaluator("mine")
    assert len(str(caught.value).splitlines()) == 1


@pytest.fixture
def file(tmp_path):
    """Name and path of a file of two images with an object each, and what it holds."""
    name = write_coco(tmp_path, [(RED, 8, 10, 30, None)], [(RED, 9, 10, 30, None)])
    path = tmp_path / "all.json"
    return name, path, json.loads(path.read_text())


def test_keypoints_of_some_objects_among_others(file):
    """Objects without keypoints are ignored where keypoints are compared, as COCO ignores them."""
    name, path, content = file
    content["annotations"][1].update(keypoints=[10, 12, 2, 30, 31, 1], num_keypoints=None)
    path.write_text(json.dumps(content))
    ensure_registered([name])
    # Detectron2 takes half a pixel off on the way to COCO's numbers of pixels.
    points = {"pred_keypoints": torch.tensor([[[10.5, 12.5, 1.0], [30.5, 31.5, 1.0]]])}
    outputs = [output_of([[x, 10, x + 30, 40]], size=(64, 96), **points) for x in (8.0, 9.0)]
    evaluator = IONCOCOEvaluator(name, use_fast_impl=False, kpt_oks_sigmas=(0.1, 0.1))
    figures = run(evaluator, [{"image_id": i} for i in (1, 2)], outputs)
    assert figures["bbox"]["AP"] == pytest.approx(100)
    assert figures["keypoints"]["AP"] == pytest.approx(100)


def test_a_file_without_annotations_gives_results_for_cocos_server(file, tmp_path, caplog):
    name, path, content = file
    labels = content.pop("annotations")
    path.write_text(json.dumps(content))
    ensure_registered([name])
    assert all("annotations" not in record for record in DatasetCatalog.get(name))
    out = tmp_path / "out"
    with caplog.at_level("INFO"):
        assert evaluate(name, output_dir=str(out)) == {}
    assert f"{name} has no annotations" in caplog.text and "results.json" in caplog.text
    results = json.loads((out / "coco_instances_results.json").read_text())
    assert [sorted(r) for r in results] == [["bbox", "category_id", "image_id", "score"]] * 2
    assert results[0] == {"image_id": 1, "category_id": 3, "bbox": [10, 10, 20, 30], "score": 1}
    # The server's own reader takes them beside the labels.
    path.write_text(json.dumps({**content, "annotations": labels}))
    assert len(COCO(str(path)).loadRes(str(out / "coco_instances_results.json")).anns) == 2
