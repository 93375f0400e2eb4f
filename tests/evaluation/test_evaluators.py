"""What is evaluated, and where: images left out, fields that lack, folders of several sets."""

import pytest
import torch
from box_helpers import output_of, register_dicts, run
from coco_json import BLUE, RED, write_coco
from detectron2.data import DatasetCatalog
from detectron2.structures import BoxMode
from model_helpers import small_config
from voc_folder import write_image, write_label

from ion_d2.data.catalog import ensure_registered
from ion_d2.data.run_images import spread_evenly
from ion_d2.engine.fit_config import settle_data
from ion_d2.errors import IONError
from ion_d2.evaluation import EVALUATORS, build_evaluators, evaluation_folder

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
    outputs = []
    for record in records:
        (annotation,) = record["annotations"]
        x, y, width, height = annotation["bbox"]
        box, classes = [x, y, x + width, y + height], [annotation["category_id"]]
        outputs.append(output_of([box], classes=classes, size=(record["height"], record["width"])))
    return run(build_evaluators(cfg, cfg.DATASETS.TEST[0]), records, outputs)


def test_pictures_left_out_are_not_missed(coco, tmp_path):
    (tmp_path / "pictures" / "2.png").write_bytes(b"")
    cfg = config(coco, tmp_path / "out", "INPUT.SKIP_UNREADABLE", True)
    records = [r for r in DatasetCatalog.get(coco) if not r["file_name"].endswith("2.png")]
    assert evaluate(cfg, records)["bbox"]["AP"] == pytest.approx(100)


def test_segmentation_is_refused_where_it_is_not_evaluated(coco, tmp_path):
    cfg = config(coco, tmp_path, "TEST.SEM_SEG", True, "MODEL.SEG_REGULARIZER_ON", True)
    with pytest.raises(IONError, match="TEST.SEM_SEG is True.*COCO's format"):
        build_evaluators(cfg, coco)


def register(name, *objects, difficult=(), **metadata):
    """A function as in Detectron2's tutorial, of one picture with boxes of 30 x 30 pixels."""
    annotations = [
        {"bbox": [x, 10, x + 30, 40], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0,
         **({"difficult": 1} if x in difficult else {})}
        for x in objects
    ]  # fmt: skip
    record = {"file_name": f"{name}.jpg", "image_id": name, "width": 200, "height": 60}
    if objects:
        record["annotations"] = annotations
    register_dicts(name, [record], thing_classes=["box"], **metadata)
    return record


@pytest.mark.parametrize(
    ("metadata", "task"),
    [
        ({}, "bbox_11point"),
        ({"evaluator_type": "pascal_voc"}, "bbox_11point"),
        ({"evaluator_type": "ion_voc"}, "bbox_11point"),
        ({"evaluator_type": "coco"}, "bbox"),
    ],
)
def test_a_registered_function_is_evaluated_on_its_dicts(tmp_path, metadata, task):
    record = register("mine", 10, 60, 110, difficult=(110,), **metadata)
    cfg = config("mine", tmp_path)
    found = output_of([[10.0, 10, 40, 40], [60, 10, 90, 40]], size=(60, 200))
    figures = run(build_evaluators(cfg, "mine"), [record], [found])
    assert figures[task]["AP50"] == pytest.approx(100)


def test_ignored_pixels_are_those_of_the_config(tmp_path):
    record = register("mine", 10, stuff_classes=["background", "box"])
    record["sem_seg_file_name"] = str(write_label(tmp_path / "a.png", [[0, 1, 254]]))
    opts = ("MODEL.SEM_SEG_HEAD.IGNORE_VALUE", 254, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 2)
    cfg = config("mine", tmp_path, *opts, "TEST.SEM_SEG", True, "MODEL.SEG_REGULARIZER_ON", True)
    scores = torch.eye(2)[[0, 1, 0]].T[:, None]
    found = {**output_of([[10.0, 10, 40, 40]], size=(60, 200)), "sem_seg": scores}
    figures = run(build_evaluators(cfg, "mine"), [record], [found])
    assert figures["sem_seg"]["pACC"] == 100


@pytest.mark.parametrize("kind", ["lvis", "cityscapes_instance", "coco_panoptic_seg", "Mine"])
def test_types_without_an_evaluator_are_told(tmp_path, kind):
    register("mine", 10, evaluator_type=kind)
    with pytest.raises(IONError, match=f"'mine'.*evaluator_type '{kind}'.*coco, ion_voc"):
        build_evaluators(config("mine", tmp_path), "mine")


def test_a_set_that_holds_nothing_to_evaluate_is_told(tmp_path):
    register("mine")
    with pytest.raises(IONError, match="'mine'.*evaluator_type"):
        build_evaluators(config("mine", tmp_path), "mine")


def test_an_evaluator_is_one_function_away(tmp_path, monkeypatch):
    monkeypatch.setattr(EVALUATORS, "_obj_map", dict(EVALUATORS._obj_map))

    @EVALUATORS.register()
    def mine(cfg, dataset_name, folder):
        return [(dataset_name, folder)]

    register("some", 10, evaluator_type="mine")
    found = build_evaluators(config("some", tmp_path), "some")
    assert found._evaluators == [("some", str(tmp_path))]
    # Beside those of the config, each has a folder of its own.
    register("one", 10)
    found = build_evaluators(config("one", tmp_path), "some")
    assert found._evaluators == [("some", str(tmp_path / "some"))]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("one", "one"), "DATASETS.TEST names 'one' more than once"),
        (("one", "other"), "'other'.*evaluator_type 'lvis'"),
    ],
)
def test_what_cannot_be_evaluated_is_told_before_the_training(tmp_path, names, words):
    register("one", 10)
    register("other", 10, evaluator_type="lvis")
    write_image(tmp_path / "one.jpg", size=(200, 60))
    for name in ("one", "other"):
        DatasetCatalog.get(name)[0]["file_name"] = str(tmp_path / "one.jpg")
    cfg = small_config("DATASETS.TRAIN", ("one",), "DATASETS.TEST", names)
    cfg.defrost()
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 0
    with pytest.raises(IONError, match=words):
        settle_data(cfg, train=True)


def test_several_sets_never_share_a_folder(tmp_path):
    long = "voc:" + "x/" * 200
    names = ["voc:a/b:test", "voc:a_b:test", "voc:a b:test", f"{long}1:test", f"{long}2:test"]
    cfg = small_config("DATASETS.TEST", f"{tuple(names)}", "OUTPUT_DIR", tmp_path)
    folders = [evaluation_folder(cfg, name).removeprefix(f"{tmp_path}/") for name in names]
    assert folders[:3] == ["voc_a_b_test", "voc_a_b_test_2", "voc_a_b_test_3"]
    assert len(set(folders)) == len(names) and all(len(folder) < 100 for folder in folders)


@pytest.mark.parametrize(("number", "count"), [(72, 4), (47, 24), (3, 24), (1, 1), (0, 4)])
def test_images_are_spread_from_the_first_to_the_last(number, count):
    chosen = spread_evenly(range(number), count)
    assert len(chosen) == min(number, count) == len(set(chosen))
    if number and count > 1:
        assert (chosen[0], chosen[-1]) == (0, number - 1)
        steps = [b - a for a, b in zip(chosen, chosen[1:])]
        assert not steps or max(steps) - min(steps) <= 1
