"""Masks, keypoints and boxes that a config wants and data lacks are told before the training."""

from __future__ import annotations

import json

import numpy as np
import pytest
from box_helpers import register_dicts
from coco_json import RED, write_coco
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from refusals import refused

from ion_d2.config import add_ion_config
from ion_d2.data.catalog import ensure_registered
from ion_d2.data.mapper import IONDatasetMapper
from ion_d2.data.task_labels import check_test_labels, check_training_labels

pytestmark = pytest.mark.usefixtures("catalogs")


def write(folder, *forms, **categories):
    """A COCO dataset of one red square a picture; its name."""
    name = write_coco(folder, *([(RED, 8, 10, 30, form)] for form in forms))
    change(folder, lambda c: [entry.update(categories) for entry in c["categories"][:1]])
    return name


def change(folder, function):
    path = folder / "all.json"
    content = json.loads(path.read_text())
    function(content)
    path.write_text(json.dumps(content))


def config(name, **keys):
    cfg = get_cfg()
    add_ion_config(cfg)
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = (name,)
    cfg.merge_from_list([x for k, v in keys.items() for x in (k.replace("__", "."), v)])
    ensure_registered([name])
    return cfg


def check(cfg, *, train):
    (name,) = cfg.DATASETS.TRAIN
    dicts = DatasetCatalog.get(name)
    if train:
        check_training_labels(cfg, dicts)
    else:
        check_test_labels(cfg, name, dicts)


def told(cfg, *words, train):
    with refused(*words):
        check(cfg, train=train)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("forms", [("polygon", None), (None, None)])
def test_objects_without_masks(tmp_path, train, forms):
    cfg = config(write(tmp_path, *forms), MODEL__MASK_ON=True)
    lacking = f"{forms.index(None) + 1}.png"
    told(cfg, "all.json", lacking, "segmentation", "MODEL.MASK_ON", train=train)
    check(config(cfg.DATASETS.TRAIN[0]), train=train)


@pytest.mark.parametrize("empty", [[], [[]], None, [[1, 1, 5, 5]]])
def test_empty_masks_are_none_but_crowds_need_no_mask(tmp_path, empty):
    cfg = config(write(tmp_path, "polygon", "polygon"), MODEL__MASK_ON=True)
    change(tmp_path, lambda c: c["annotations"][1].update(segmentation=empty))
    told(cfg, "2.png", "segmentation", train=True)
    change(tmp_path, lambda c: c["annotations"][1].update(iscrowd=1))
    check(cfg, train=True)
    change(tmp_path, lambda c: c["annotations"].pop(1))
    check(cfg, train=True)


@pytest.mark.parametrize("form", ["runs", "compressed"])
def test_run_lengths_are_no_polygons(tmp_path, form):
    cfg = config(write(tmp_path, "polygon", form), MODEL__MASK_ON=True)
    told(cfg, "2.png", "INPUT.MASK_FORMAT", "bitmask", train=True)
    check(cfg, train=False)
    cfg.INPUT.MASK_FORMAT = "bitmask"
    check(cfg, train=True)
    for record in DatasetCatalog.get(cfg.DATASETS.TRAIN[0]):
        masks = IONDatasetMapper(cfg, is_train=True)(record)["instances"].gt_masks.tensor
        assert masks.any()


@pytest.mark.parametrize("kind", ["polygon", "bitmask"])
def test_cropping_polygons_needs_shapely_in_either_format(tmp_path, monkeypatch, kind):
    cfg = config(write(tmp_path, "polygon"), MODEL__MASK_ON=True, INPUT__MASK_FORMAT=kind)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    check(cfg, train=True)
    cfg.INPUT.CROP.ENABLED = True
    told(cfg, "INPUT.CROP.ENABLED to False", "pip install shapely", train=True)
    if kind == "bitmask":
        change(tmp_path, lambda c: c["annotations"].clear())
    else:
        cfg.MODEL.MASK_ON = False
    check(cfg, train=True)


def function_dicts(**fields):
    """Dicts as a user's function returns them, one object each."""
    box = {"bbox": [1, 1, 20, 20], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
    sizes = {"height": 30, "width": 40}
    return [
        {"file_name": f"{i}.jpg", "image_id": i, **sizes, "annotations": [{**box, **fields}]}
        for i in range(2)
    ]


def register(name, dicts):
    return register_dicts(name, dicts, thing_classes=["a"])


def test_registered_functions(tmp_path):
    told(config(register("f", function_dicts()), MODEL__MASK_ON=True), "f", "0.jpg", train=True)
    told(config("f", MODEL__KEYPOINT_ON=True), "f", "0.jpg", "KEYPOINT_ON", train=True)
    check(config("f", MODEL__MASK_ON=True), train=False)  # evaluated by boxes
    mask = np.ones((30, 40), dtype=bool)
    name = register("masked", function_dicts(segmentation=mask))
    check(config(name, MODEL__MASK_ON=True, INPUT__MASK_FORMAT="bitmask"), train=True)
    unlabeled = [{k: v for k, v in d.items() if k != "annotations"} for d in function_dicts()]
    name = register("unlabeled", unlabeled)
    told(config(name), "unlabeled", "0.jpg", "annotations", train=True)
    check(config(name), train=False)
    told(config(name, TEST__LOSS=True), "unlabeled", "annotations", train=False)


HAND = {"keypoints": ["thumb", "little"], "skeleton": [[1, 2]]}
ON = {"MODEL__KEYPOINT_ON": True, "MODEL__ROI_KEYPOINT_HEAD__NUM_KEYPOINTS": 2}


def hands(folder, **categories):
    """A COCO dataset whose first object has two keypoints, the second none; its name."""
    name = write(folder, None, None)
    change(folder, lambda c: c["categories"][1].update({**HAND, **categories}))
    points = [10, 12, 2, 30, 31, 1]
    change(folder, lambda c: c["annotations"][0].update(keypoints=points, num_keypoints=2))
    return name


def test_keypoints_with_the_names_in_the_file(tmp_path):
    cfg = config(hands(tmp_path), TEST__KEYPOINT_OKS_SIGMAS=[0.1, 0.1], **ON)
    for train in (True, False):
        check(cfg, train=train)
    (name,) = cfg.DATASETS.TRAIN
    metadata = MetadataCatalog.get(name)
    assert metadata.keypoint_names == ["thumb", "little"] and metadata.keypoint_flip_map == []
    points = [record["annotations"][0]["keypoints"] for record in DatasetCatalog.get(name)]
    assert points == [[10.5, 12.5, 2, 30.5, 31.5, 1], [0.5, 0.5, 0, 0.5, 0.5, 0]]
    cfg.INPUT.RANDOM_FLIP, cfg.INPUT.MIN_SIZE_TRAIN = "none", (64,)
    mapped = IONDatasetMapper(cfg, is_train=True)(DatasetCatalog.get(name)[0])
    found = mapped["instances"].gt_keypoints.tensor[0]
    np.testing.assert_allclose(found, [[10.5, 12.5, 2], [30.5, 31.5, 1]])


@pytest.mark.parametrize(
    ("categories", "keys", "train", "words"),
    [
        ({"keypoints": []}, {}, True, ("all.json", "does not name its keypoints")),
        ({"keypoints": ["left", "top"]}, {}, True, ("all.json", "(left)", "keypoint_flip_map")),
        ({}, {"MODEL__ROI_KEYPOINT_HEAD__NUM_KEYPOINTS": 17}, True,
         ("NUM_KEYPOINTS is 17", "all.json", "2 keypoints (thumb, little)")),
        ({}, {"TEST__KEYPOINT_OKS_SIGMAS": []}, False,
         ("TEST.KEYPOINT_OKS_SIGMAS is empty", "17", "2 keypoints")),
        ({}, {"TEST__KEYPOINT_OKS_SIGMAS": [0.1] * 3}, False,
         ("TEST.KEYPOINT_OKS_SIGMAS has 3", "2 keypoints")),
    ],
)  # fmt: skip
def test_keypoints_that_do_not_fit(tmp_path, categories, keys, train, words):
    told(config(hands(tmp_path, **categories), **{**ON, **keys}), *words, train=train)


@pytest.mark.parametrize("train", [True, False])
def test_no_keypoints_at_all(tmp_path, train):
    cfg = config(write(tmp_path, None, None), **ON)
    told(cfg, "all.json", "1.png", "keypoints", "MODEL.KEYPOINT_ON", train=train)


def test_sets_with_different_keypoints(tmp_path):
    names = []
    for folder, words in (("a", ["thumb", "little"]), ("b", ["little", "thumb"])):
        (tmp_path / folder).mkdir()
        names.append(hands(tmp_path / folder, keypoints=words))
    cfg = config(names[0], **ON)
    cfg.DATASETS.TRAIN = tuple(names)
    ensure_registered(names)
    dicts = [record for name in names for record in DatasetCatalog.get(name)]
    with refused(*names, "keypoint_names"):
        check_training_labels(cfg, dicts)


def test_the_mapper_for_tests_needs_no_training_data(tmp_path):
    cfg = config(hands(tmp_path), **ON)
    cfg.DATASETS.TRAIN = ("not_there",)
    record = DatasetCatalog.get(cfg.DATASETS.TEST[0])[0]
    assert "instances" not in IONDatasetMapper(cfg, is_train=False)(record)
