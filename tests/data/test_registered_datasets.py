"""Datasets registered as functions: completed, or told by dataset, picture and key."""

import logging
import warnings
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from model_helpers import small_config
from PIL import Image
from refusals import refused
from voc_folder import write_image

from ion_d2.data.catalog import class_names, ensure_registered, evaluator_type
from ion_d2.data.dataset_names import DATASET_FORMS
from ion_d2.data.run_images import train_dicts

ABSENT, NAN, INF, XYWH = object(), float("nan"), float("inf"), BoxMode.XYWH_ABS

pytestmark = pytest.mark.usefixtures("catalogs")


def present(**entries):
    return {key: value for key, value in entries.items() if value is not ABSENT}


def a_box(**changes):
    box = {"bbox": [1, 2, 9, 9], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
    return present(**{**box, **changes})


def load(path, *annotations, **changes):
    record = {"file_name": str(path), "image_id": 7, "width": 40, "height": 30}
    record = present(**{**record, "annotations": list(annotations), **changes})
    DatasetCatalog.register("mine", lambda: [record])
    MetadataCatalog.get("mine").thing_classes = ["cat", "dog"]
    ensure_registered(["mine"])
    ensure_registered(["mine"])
    return DatasetCatalog.get("mine")[0]


@pytest.fixture
def picture(tmp_path):
    return write_image(tmp_path / "im0.jpg")


@pytest.mark.parametrize("missing", [("width",), ("height",), ("width", "height")])
@pytest.mark.parametrize(("orientation", "size"), [(1, (30, 40)), (6, (40, 30))])
def test_sizes_come_from_the_picture(tmp_path, missing, orientation, size):
    exif = Image.Exif()
    exif[274] = orientation
    path = write_image(tmp_path / "im0.jpg", exif=exif)
    record = load(path, **{key: ABSENT for key in missing})
    assert (record["height"], record["width"]) == size


def test_what_detectron2_takes_is_taken(picture):
    corners = np.array([1, 2, 9, 9], np.float32)
    boxes = [a_box(bbox=corners), a_box(category_id=np.int64(1), bbox_mode=1)]
    changes = {"width": np.int32(40), "height": 30.0, "image_id": ABSENT}
    record = load(picture, *boxes, file_name=Path(picture), sem_seg_file_name=picture, **changes)
    assert record["file_name"] == record["sem_seg_file_name"] == str(picture)
    assert (record["width"], record["height"], record["image_id"]) == (40, 30, 0)
    read, _ = record["annotations"]
    assert read["bbox"] == [1, 2, 9, 9] and {type(value) for value in read["bbox"]} == {float}


def test_a_label_map_that_is_none_is_no_label_map(picture):
    assert "sem_seg_file_name" not in load(picture, a_box(), sem_seg_file_name=None)


# Words of the message -> what is wrong with a box.
WRONG = {
    "'bbox'": [{"bbox": ABSENT}, {"bbox": None}],
    "bbox": [{"bbox": "1 2 9 9"}],
    "4 numbers": [{"bbox": [1, 2, *rest]} for rest in ([9], ["9", 9], [NAN, 9], [INF, 9])],
    "right or bottom": [{"bbox": [9, 2, 1, 9]}, {"bbox": [1, 2, 9, -9], "bbox_mode": XYWH}],
    "'bbox_mode'": [{"bbox_mode": ABSENT}],
    "XYXY_ABS": [{"bbox_mode": BoxMode.XYXY_REL}],
    "99": [{"bbox_mode": 99}],
    "'category_id'": [{"category_id": ABSENT}],
    "category_id '0'": [{"category_id": "0"}],
    "category_id True": [{"category_id": True}],
    "category_id -1": [{"category_id": -1}],
    "0 to 1": [{"category_id": 2}],
}


@pytest.mark.parametrize(("words", "change"), [(w, c) for w, cs in WRONG.items() for c in cs])
def test_annotations_that_are_told(picture, words, change):
    with refused("'mine'", "im0.jpg", words):
        load(picture, a_box(**change))


def test_numbers_of_32_bits_are_taken_without_a_warning(picture):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(picture, a_box(bbox=np.array([1, 2, 9, 9], np.float32)))
    with refused("bbox", "not 4 numbers"):
        MetadataCatalog.remove("mine")
        DatasetCatalog.remove("mine")
        load(picture, a_box(bbox=np.array([0, 0, np.inf, 10], np.float32)))


def test_an_annotation_that_is_no_dict_is_told(picture):
    with refused("'mine'", "im0.jpg", "not a dict"):
        load(picture, [1, 2, 3, 4])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"file_name": ABSENT}, ("entry 0", "'file_name'")),
        ({"file_name": 3}, ("entry 0", "'file_name'")),
        ({"width": "40"}, ("im0.jpg", "width '40'")),
        ({"height": 0}, ("im0.jpg", "height 0")),
        ({"height": 30.5}, ("im0.jpg", "height 30.5")),
        ({"annotations": 3}, ("im0.jpg", "annotations 3")),
        ({"file_name": "none.jpg", "width": ABSENT}, ("none.jpg", "does not exist")),
    ],
)
def test_dicts_that_are_told(picture, changes, words):
    with refused("'mine'", *words):
        load(picture, **changes)


def test_a_picture_without_annotations_among_others_is_told(picture):
    record = {"file_name": str(picture), "width": 40, "height": 30}
    DatasetCatalog.register("mine", lambda: [{**record, "annotations": []}, record])
    ensure_registered(["mine"])
    with refused("'mine'", "im0.jpg", "'annotations'", "empty list"):
        DatasetCatalog.get("mine")


def test_boxes_without_extent_are_left_out_with_a_warning(picture, caplog):
    with caplog.at_level(logging.WARNING, logger="ion_d2"):
        record = load(picture, a_box(), a_box(bbox=[3, 3, 3, 9]))
    assert len(record["annotations"]) == 1
    assert "'mine'" in caplog.text and "im0.jpg" in caplog.text


@pytest.mark.parametrize(
    ("annotations", "metadata", "expected"),
    [
        ([a_box()], {}, "pascal_voc"),
        ([a_box(segmentation=[[1, 1, 9, 1, 9, 9]])], {}, "coco"),
        ([a_box(keypoints=[1, 1, 2])], {}, "coco"),
        ([], {}, "pascal_voc"),
        (ABSENT, {}, None),
        (ABSENT, {"dirname": ".", "split": "test"}, "pascal_voc"),
        ([a_box()], {"evaluator_type": "lvis"}, "lvis"),
    ],
)
def test_how_a_set_is_evaluated_follows_from_what_it_holds(
    picture, annotations, metadata, expected
):
    MetadataCatalog.get("mine").set(**metadata)
    load(picture, annotations=annotations)
    assert evaluator_type("mine") == expected
    assert MetadataCatalog.get("mine").get("evaluator_type") == metadata.get("evaluator_type")


def test_a_missing_picture_is_told_before_the_training(picture):
    load(picture, a_box())
    opts = ("DATASETS.TRAIN", "('mine',)", "MODEL.ROI_HEADS.NUM_CLASSES", 2)
    assert len(train_dicts(small_config(*opts))) == 1
    Path(picture).unlink()
    with refused("im0.jpg", "does not exist"):
        train_dicts(small_config(*opts))


def test_a_picture_of_difficult_objects_alone_is_not_trained_on(picture, tmp_path):
    """All its regions, those on the objects too, would be background."""
    opts = ["DATASETS.TRAIN", "('mine',)", "MODEL.ROI_HEADS.NUM_CLASSES", 2]
    load(picture, a_box(difficult=1))
    with refused("DATASETS.TRAIN", "every object is a crowd or marked difficult"):
        train_dicts(small_config(*opts))
    for further in (["DATASETS.USE_DIFFICULT", True],
                    ["DATALOADER.FILTER_EMPTY_ANNOTATIONS", False]):  # fmt: skip
        assert len(train_dicts(small_config(*opts, *further))) == 1
    DatasetCatalog.remove("mine")
    load(picture, a_box(difficult=1), a_box())
    assert len(train_dicts(small_config(*opts))) == 1


def test_what_a_form_of_names_registers_is_completed_at_once(picture, monkeypatch):
    monkeypatch.setattr(DATASET_FORMS, "_obj_map", dict(DATASET_FORMS._obj_map))

    @DATASET_FORMS.register()
    def pictures(name):
        record = {"file_name": Path(picture), "annotations": [a_box()]}
        DatasetCatalog.register(name, {0: record}.values)  # a builtin has no module
        MetadataCatalog.get(name).thing_classes = [name.partition(":")[2]]

    assert class_names(["pictures:here"]) == ["here"]
    record = DatasetCatalog.get("pictures:here")[0]
    assert (record["file_name"], record["width"], record["height"]) == (str(picture), 40, 30)
