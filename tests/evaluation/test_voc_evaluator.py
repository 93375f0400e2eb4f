"""The VOC evaluator through Detectron2's interface: figures, files, ranks and bad input."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from box_helpers import output_of, register_dicts, run
from detectron2.config import get_cfg
from detectron2.evaluation import inference_on_dataset, print_csv_format, verify_results
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.structures import BoxMode, Instances
from process_helpers import in_two_processes

from ion_d2.data.voc_layout import load_voc_layout
from ion_d2.errors import IONError
from ion_d2.evaluation import IONVOCEvaluator

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("catalogs")]

BCCD = Path(__file__).resolve().parents[2] / "../shared/data/bccd/VOC2007"
NAME = "ion_test_voc_evaluator"


def record_of(image_id, boxes, classes, difficult=(0, 0, 0)):
    annotations = [
        {"bbox": b, "bbox_mode": BoxMode.XYXY_ABS, "category_id": c, "difficult": d, "iscrowd": 0}
        for b, c, d in zip(boxes, classes, difficult)
    ]
    sizes = {"height": 100, "width": 120, "annotations": annotations}
    return {"image_id": image_id, "file_name": f"{image_id}.jpg", **sizes}


# Two cats and a dog to be found, a difficult dog, an image without objects; no cow.
RECORDS = [
    record_of("b", [[0, 0, 10, 10], [50, 0, 90, 50], [0, 50, 10, 60]], [0, 1, 1], [0, 0, 1]),
    record_of("a", [[20.0, 20.0, 60.0, 70.0]], [0]),
    record_of("empty", [], []),
]


def perfect_output(record):
    found = record["annotations"]
    return output_of([a["bbox"] for a in found], classes=[a["category_id"] for a in found])


PERFECT = [perfect_output(record) for record in RECORDS]


def register(records, class_names=("cat", "dog", "cow")):
    return register_dicts(NAME, records, thing_classes=list(class_names))


@pytest.fixture
def dataset():
    return register(RECORDS)


def test_truth_as_detections_is_perfect(dataset):
    results = run(IONVOCEvaluator(dataset), RECORDS, PERFECT)
    assert list(results) == ["bbox", "bbox_11point", "bbox_area", "bbox_coco"]
    for task in ("bbox", "bbox_11point", "bbox_area"):
        assert {results[task][m] for m in ("AP", "AP50", "AP75")} == {100.0}
    assert list(results["bbox_coco"]) == ["AP", "AP50", "AP75", "APs", "APm", "APl"]
    for name in ("AP", "AP50", "AP75", "APs", "APm"):
        assert results["bbox_coco"][name] == pytest.approx(100)
    assert np.isnan(results["bbox_coco"]["APl"])
    assert results["bbox"]["AP50-cat"] == results["bbox"]["AP50-dog"] == 100
    assert np.isnan(results["bbox"]["AP50-cow"])


def partly_wrong():
    """Cat: right, wrong with the same score, wrong. Dog: the difficult one (ignored), the other."""
    b = output_of([[0, 0, 10, 10], [80, 80, 99, 99], [0, 50, 10, 60]], [0.9, 0.8, 0.9], [0, 0, 1])
    a = output_of([[0, 0, 10, 10]], [0.9], [0])
    empty = output_of([[50, 0, 90, 50]], [0.1], [1])
    b["instances"] = Instances.cat([b["instances"], empty["instances"]])
    return [b, a, output_of()]


def test_figures_by_hand_and_files(dataset, tmp_path, caplog):
    out = tmp_path / "new" / "folder"
    evaluator = IONVOCEvaluator(dataset, metric="area", output_dir=str(out))
    with caplog.at_level(logging.INFO, logger="ion_d2"):
        results = run(evaluator, RECORDS, partly_wrong())
    # Cat: recall 1/2 at precision 1, so area 1/2 and six of eleven points. Dog: 1.
    assert results["bbox"]["AP50-cat"] == pytest.approx(50)
    assert results["bbox"] == pytest.approx(
        {**results["bbox_area"], "AP50-cat": 50, "AP50-dog": 100, "AP50-cow": np.nan}, nan_ok=True
    )
    assert results["bbox_area"] == pytest.approx({"AP": 75, "AP50": 75, "AP75": 75})
    assert results["bbox_11point"]["AP50"] == pytest.approx(50 * (6 / 11 + 1))

    report = json.loads((out / "voc_results.json").read_text())
    assert report["dataset"] == dataset and report["num_images"] == 3
    assert report["metric"] == "area" and report["mean"]["area"]["AP50"] == pytest.approx(75)
    dog = report["classes"]["dog"]
    assert (dog["num_images"], dog["num_boxes"], dog["num_difficult"]) == (1, 1, 1)
    assert dog["11point"]["AP75"] == pytest.approx(100) and len(dog["area"]["by_iou"]) == 10
    assert report["classes"]["cow"]["area"]["AP50"] is None and report["coco"]["APl"] is None
    detections = json.loads((out / "detections.json").read_text())
    assert len(detections) == 5
    first = {"image_id": "b", "category": "cat", "bbox": [0, 0, 10, 10]}
    assert detections[0] == {**first, "score": pytest.approx(0.9)}
    assert sorted(p.name for p in out.iterdir()) == ["detections.json", "voc_results.json"]
    assert "| cat" in caplog.text and "| mean" in caplog.text and "APs" in caplog.text


def test_boxes_follow_the_devkit_convention(dataset):
    # As 1-based inclusive boxes [1,1,10,10] and [1,1,10,5]: 50 of 100 pixels, not above 0.5;
    # and one more column of pixels makes it so.
    for bottom, expected in ((5, 0), (5.1, 50)):
        outputs = [output_of([[0, 0, 10, bottom]]), output_of(), output_of()]
        results = run(IONVOCEvaluator(dataset, metric="area"), RECORDS, outputs)
        assert results["bbox"]["AP50-cat"] == pytest.approx(expected)
    # No detections at all are 0.
    results = run(IONVOCEvaluator(dataset), RECORDS, [output_of()] * 3)
    assert results["bbox"]["AP50"] == results["bbox"]["AP"] == results["bbox_coco"]["AP"] == 0


def test_detectron2_accepts_the_results(dataset, caplog):
    class Model:
        def __call__(self, inputs):
            return [perfect_output(record) for record in inputs]

    results = inference_on_dataset(Model(), [[r] for r in RECORDS], [IONVOCEvaluator(dataset)])
    with caplog.at_level(logging.INFO, logger="detectron2"):
        print_csv_format(results)
    assert "copypaste: AP,AP50,AP75" in caplog.text
    flat = flatten_results_dict(results)
    assert flat["bbox/AP50-cat"] == 100 and all(isinstance(v, float) for v in flat.values())
    cfg = get_cfg()
    cfg.TEST.EXPECTED_RESULTS = [["bbox", "AP50", 100, 0.1], ["bbox_coco", "APs", 100, 0.1]]
    assert verify_results(cfg, results)
    cfg.TEST.EXPECTED_RESULTS = [["bbox", "AP50", 90, 0.1]]
    with pytest.raises(SystemExit):
        verify_results(cfg, results)


def test_a_missing_image_is_an_error_unless_left_out_on_purpose(dataset):
    with pytest.raises(IONError, match='2 of 3 images.*"a"'):
        run(IONVOCEvaluator(dataset), RECORDS[:1], PERFECT[:1])
    chosen = IONVOCEvaluator(dataset, records=RECORDS[::2])
    assert run(chosen, RECORDS[::2], PERFECT[::2])["bbox"]["AP"] == 100


def test_bad_input_is_named(dataset, tmp_path):
    evaluator = IONVOCEvaluator(dataset)
    with pytest.raises(IONError, match='"stranger"'):
        evaluator.process([{"image_id": "stranger"}], [output_of()])
    with pytest.raises(IONError, match="class number 3.*NUM_CLASSES"):
        evaluator.process(RECORDS[:1], [output_of([[0, 0, 1, 1]], classes=[3])])
    with pytest.raises(IONError, match="12point"):
        IONVOCEvaluator(dataset, metric="12point")
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(IONError, match="OUTPUT_DIR"):
        run(IONVOCEvaluator(dataset, output_dir=str(blocked / "sub")), RECORDS, PERFECT)


def test_bad_datasets_are_named():
    with pytest.raises(IONError, match="more than once"):
        IONVOCEvaluator(register([*RECORDS, RECORDS[0]]))
    with pytest.raises(IONError, match="thing_classes"):
        IONVOCEvaluator(register(RECORDS, class_names=()))


def evaluate_share(rank):
    """One of two processes: each runs some of the images, in another order than the dataset's."""
    register(RECORDS)
    evaluator = IONVOCEvaluator(NAME, metric="area")
    share = [1, 2] if rank == 0 else [0]
    outputs = partly_wrong()
    return json.dumps(run(evaluator, [RECORDS[i] for i in share], [outputs[i] for i in share]))


def test_two_ranks_give_the_figures_of_one(dataset, tmp_path):
    results = in_two_processes(evaluate_share, tmp_path)
    alone = run(IONVOCEvaluator(dataset, metric="area"), RECORDS, partly_wrong())
    assert results == [json.dumps(alone), "{}"]


@pytest.mark.skipif(not BCCD.is_dir(), reason="the BCCD data set is not at ../shared/data")
def test_bccd_truth_as_detections_is_perfect():
    records = load_voc_layout(BCCD, "test", ["Platelets", "RBC", "WBC"])
    register(records, ["Platelets", "RBC", "WBC"])
    results = run(IONVOCEvaluator(NAME), records, [perfect_output(r) for r in records])
    figures = [v for task in results.values() for v in task.values() if not np.isnan(v)]
    assert figures == pytest.approx([100] * len(figures)) and len(figures) >= 17
