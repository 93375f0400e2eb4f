"""Labels of any format by COCO's measures: always those of now; and files without labels."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from box_helpers import output_of, register_dicts, run
from coco_json import RED, write_coco
from detectron2.data import DatasetCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import BoxMode
from model_helpers import small_config
from pycocotools.coco import COCO

from ion_d2.data.catalog import ensure_registered
from ion_d2.data.coco_datasets import coco_content
from ion_d2.errors import IONError
from ion_d2.evaluation import IONCOCOEvaluator, build_evaluators
from ion_d2.evaluation.coco_style import evaluate_coco_file
from ion_lab.report.evaluated_run import read_outcome
from ion_lab.report.scores import score_parts

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
    (tmp_path / "mine_coco_format.json").unlink()
    ensure_registered(["mine"])  # nothing of the dataset is missing


@pytest.mark.parametrize("ids", [("a", "b"), ("x/0", "0"), (0, 1), ("7", "8")])
def test_ids_of_any_kind(ids):
    register(ids)
    assert evaluate(ids=ids)["bbox"]["AP"] == pytest.approx(100)
    assert evaluate(ids=ids[:1], image_ids=ids[:1])["bbox"]["AP"] == pytest.approx(100)
    assert evaluate(ids=ids[:1])["bbox"]["AP"] < 60


CAT, DOG, PERSON = ({"id": i, "name": n} for i, n in ((17, "cat"), (18, "dog"), (1, "person")))
BOTH = [PERSON, CAT, DOG]


def register_classes(classes, categories, folder, **metadata):
    """Two images with an object each of the classes; and of each category, if there is a file."""
    objects = [{"bbox": BOX, "bbox_mode": BoxMode.XYXY_ABS, "category_id": i} for i in range(2)]
    size = {"height": 50, "width": 60}
    dicts = [
        {"file_name": f"{i}.jpg", "image_id": i, **size, "annotations": objects[: len(classes)]}
        for i in (1, 2)
    ]
    if categories:
        boxes = [(i, c["id"]) for i in (1, 2) for c in categories]
        x0, y0, x1, y1 = BOX
        fields = {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": 600, "iscrowd": 0}
        content = {
            "images": [{"id": i, "file_name": f"{i}.jpg", **size} for i in (1, 2)],
            "annotations": [
                {"id": number, "image_id": image_id, "category_id": category, **fields}
                for number, (image_id, category) in enumerate(boxes, 1)
            ],
            "categories": categories,
        }
        metadata["json_file"] = str(folder / "set.json")
        (folder / "set.json").write_text(json.dumps(content))
    register_dicts("mine", dicts, thing_classes=classes, evaluator_type="coco", **metadata)


@pytest.mark.parametrize(
    ("classes", "ids", "categories"),
    [
        (["dog", "cat"], {18: 0, 17: 1}, None),
        (["dog", "cat"], {np.int64(18): 0, np.int64(17): 1}, [CAT, DOG]),
        (["dog", "cat"], {18: 0, 17: 1}, BOTH),
        (["dog", "cat"], None, BOTH),  # by their names
        (["a dog", "a cat"], {18: 0, 17: 1}, BOTH),
        (["cat"], {17: 0}, BOTH),
    ],
)
def test_classes_are_those_of_the_registered_set(tmp_path, classes, ids, categories):
    metadata = {} if ids is None else {"thing_dataset_id_to_contiguous_id": ids}
    register_classes(classes, categories, tmp_path, **metadata)
    cfg = small_config("DATASETS.TEST", "('mine',)", "OUTPUT_DIR", tmp_path)
    # All of the first class, and half of the second.
    outputs = [output_of([BOX] * n, classes=range(n)) for n in (len(classes), 1)]
    records = [{"image_id": i} for i in (1, 2)]
    figures = run(build_evaluators(cfg, "mine"), records, outputs)["bbox"]
    halves = 100 * 51 / 101  # recalls up to a half
    expected = [100, halves][: len(classes)]
    assert figures["AP"] == pytest.approx(sum(expected) / len(expected))
    if len(classes) > 1:
        names = [name.removeprefix("a ") for name in classes]
        found = {k.removeprefix("AP-a ").removeprefix("AP-"): v for k, v in figures.items()}
        assert [found[name] for name in names] == pytest.approx(expected)
    outcome = read_outcome(cfg, "mine")
    assert outcome.found[1].classes.tolist() == list(range(len(classes)))
    rows = score_parts(outcome)[1].rows
    assert [(row[0], row[-1]) for row in rows] == list(zip(classes, ["100.0", "50.5"]))


def test_classes_of_one_category_and_ids_that_are_none(tmp_path):
    ids = {"thing_dataset_id_to_contiguous_id": {17: 0, 18: 0}}
    register_classes(["animal"], BOTH, tmp_path, **ids)
    outputs = [output_of([BOX, BOX])] * 2
    evaluator = IONCOCOEvaluator("mine", use_fast_impl=False)
    assert run(evaluator, [{"image_id": i} for i in (1, 2)], outputs)["bbox"]["AP"] > 99.9
    for wrong in ({17: 0, 5: 1}, {17: 1, 18: 2}):
        ids = {"thing_dataset_id_to_contiguous_id": wrong}
        register_classes(["cat", "dog"], BOTH, tmp_path, **ids)
        with pytest.raises(IONError, match="thing_dataset_id_to_contiguous_id.*'mine'.*1, 17, 18"):
            IONCOCOEvaluator("mine")


def test_labels_with_keypoints_stay_where_they_are():
    keypoints = [12.5, 20.5, 2]
    register(keypoints=keypoints)
    ensure_registered(["mine"])
    moved = [coco_content("mine")["annotations"][0]["keypoints"] for _ in range(2)]
    assert moved == [[12, 20, 2]] * 2 and keypoints == [12.5, 20.5, 2]


def test_crowds_and_images_that_are_not_of_the_set():
    register(iscrowd=1)
    assert evaluate()["bbox"]["AP"] != evaluate()["bbox"]["AP"]  # NaN: nothing to be found
    with pytest.raises(IONError, match="no image 3 in dataset 'mine'"):
        evaluate(ids=(1, 3))


@pytest.mark.parametrize(
    "fields",
    [
        {"segmentation": [list(np.float32([1, 1, 9, 1, 9, 9]))]},
        {"segmentation": [np.array([1.0, 1, 9, 1, 9, 9])]},
        {"keypoints": np.array([3, 3, 2])},
    ],
)
def test_labels_of_numpys_numbers_and_arrays(fields):
    register(**fields)
    ensure_registered(["mine"])
    assert evaluate()["bbox"]["AP"] == pytest.approx(100)


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
    with pytest.raises(IONError, match=words):
        IONCOCOEvaluator("mine")


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
    with pytest.raises(IONError, match=f"{path} has no 'annotations' to evaluate with"):
        evaluate_coco_file(path, results)
    # The server's own reader takes them beside the labels.
    path.write_text(json.dumps({**content, "annotations": labels}))
    assert len(COCO(str(path)).loadRes(str(out / "coco_instances_results.json")).anns) == 2
