"""Faults of boxes against hand-made cases, and overlaps with anchors against Detectron2's own."""

import json
import logging
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import build_anchor_generator
from detectron2.structures import Boxes, BoxMode, pairwise_iou
from voc_folder import object_xml, write_voc

from ion_d2 import get_config
from ion_d2.data.catalog import ensure_registered
from ion_d2.data.label_faults import (
    anchor_shapes,
    best_overlaps,
    collect_objects,
    find_box_faults,
    log_label_faults,
)
from ion_d2.shell import python_command

WIDTH, HEIGHT = 200, 100


def record(*boxes, mode=BoxMode.XYXY_ABS, **fields):
    objects = [{"bbox": list(b), "bbox_mode": mode, "category_id": 0, **fields} for b in boxes]
    return {"file_name": "a.jpg", "width": WIDTH, "height": HEIGHT, "annotations": objects}


@pytest.mark.parametrize(
    ("box", "rule"),
    [
        ((0, 0, 200, 100), None),
        ((-1, -1, 201, 101), None),  # programs differ by a pixel
        ((-1.5, 0, 50, 50), "box-outside"),
        ((0, 0, 50, 101.5), "box-outside"),
        ((50, 20, 40, 60), "box-inverted"),
        ((50, 20, 60, 10), "box-inverted"),
        ((50, 20, 50, 60), "box-empty"),
        ((50, 20, 51, 21), "box-empty"),  # a point of VOC
        ((50, 20, 52, 60), "box-tiny"),
        ((50, 20, 53, 60), None),
    ],
)
def test_each_box_breaks_its_rule_alone(box, rule):
    x0, y0, x1, y1 = box
    in_sizes = record((x0, y0, x1 - x0, y1 - y0), mode=BoxMode.XYWH_ABS)
    for each in (record(box), in_sizes):
        found = find_box_faults(collect_objects([record(), each]))
        assert [name for name, faulty in found.items() if faulty.any()] == ([rule] if rule else [])


def test_repeated_boxes_are_those_of_one_class_in_one_picture():
    box, near = (10, 10, 50, 50), (10.2, 10, 50, 49.8)
    other_class = record(box, category_id=1)["annotations"]
    first = record(box, (1, 1, 9, 9), near)
    first["annotations"] += other_class
    objects = collect_objects([first, record(box)])
    assert find_box_faults(objects)["box-repeated"].tolist() == [0, 0, 1, 0, 0]


def test_no_objects_at_all():
    for records in ([], [record()], [{"file_name": "a", "width": 1, "height": 1}]):
        objects = collect_objects(records)
        assert not any(faulty.any() for faulty in find_box_faults(objects).values())
        cfg = get_config("configs/ion_tiny.yaml")
        assert best_overlaps(objects, cfg, anchor_shapes(cfg)).shape == (0,)


def test_of_rotated_boxes_the_upright_ones_around_are_taken(told):
    rotated = [record((60, 50, 40, 20, angle), mode=BoxMode.XYWHA_ABS) for angle in (0, 90, 30)]
    side = 40 * 3**0.5 / 2 + 20 / 2, 40 / 2 + 20 * 3**0.5 / 2  # of the last, by its angle
    expected = [(40, 40, 80, 60), (50, 30, 70, 70), (60 - side[0] / 2, 50 - side[1] / 2)]
    found = collect_objects(rotated)
    for box, corners in zip(found.box, expected):
        np.testing.assert_allclose(box[: len(corners)], corners, rtol=1e-5)
    assert told(rotated[0], record((60, 60, 90, 90), category_id=1)) == []  # a cat and a dog
    beyond = record((190, 50, 40, 20, 30), mode=BoxMode.XYWHA_ABS)
    assert "1 box(es) beyond the border" in told(beyond)[0]


def test_crowds_are_not_learned():
    crowd, hard = record((1, 1, 9, 9), iscrowd=1), record((1, 1, 9, 9), difficult=1)
    found = collect_objects([crowd, hard, record((1, 1, 9, 9))])
    assert found.learned.tolist() == [0, 0, 1]
    assert collect_objects([hard], use_difficult=True).learned.all()


@pytest.mark.parametrize("name", ["ion_tiny", "ion_vgg16_voc_mixed_rpn", "ion_vgg16_voc"])
def test_overlaps_are_those_of_detectron2s_anchors(name):
    cfg = get_config(f"configs/{name}.yaml")
    strides = {"ion_tiny": [8, 16]}.get(name, [16])
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, (WIDTH, HEIGHT), (40, 2))
    boxes = np.column_stack([corners, corners + rng.uniform(3, (WIDTH, HEIGHT), (40, 2))])
    boxes[:, 2:] = boxes[:, 2:].clip(0, (WIDTH, HEIGHT))
    size = (min(cfg.INPUT.MIN_SIZE_TRAIN), min(cfg.INPUT.MIN_SIZE_TRAIN) * WIDTH // HEIGHT)
    scale = size[0] / HEIGHT
    if size[1] > cfg.INPUT.MAX_SIZE_TRAIN:
        scale *= cfg.INPUT.MAX_SIZE_TRAIN / size[1]
    cfg.defrost()
    cfg.INPUT.MIN_SIZE_TRAIN = cfg.INPUT.MIN_SIZE_TRAIN[:1]
    height, width = HEIGHT * scale, WIDTH * scale
    maps = [torch.zeros(1, 1, -int(-height // s), -int(-width // s)) for s in strides]
    generator = build_anchor_generator(cfg, [ShapeSpec(stride=s) for s in strides])
    anchors = Boxes.cat(generator(maps))
    expected = pairwise_iou(Boxes(torch.tensor(boxes * scale, dtype=torch.float32)), anchors)
    found = best_overlaps(collect_objects([record(*boxes)]), cfg, anchor_shapes(cfg), strides)
    np.testing.assert_allclose(found, expected.max(dim=1).values, atol=1e-4)


def test_models_without_an_rpn_have_no_anchors():
    cfg = get_config("configs/ion_tiny.yaml", {"MODEL.PROPOSAL_GENERATOR.NAME": "RRPN"})
    assert anchor_shapes(cfg) == []


@pytest.fixture
def told(catalogs, caplog, tmp_path):
    """What a training would warn of, for dicts of the classes cat and dog."""
    MetadataCatalog.get("mine").set(thing_classes=["cat", "dog"])
    names = {"DATASETS.TRAIN": ("mine",), "DATASETS.TEST": ("a b", "mine")}
    cfg = get_config("configs/ion_tiny.yaml", {**names, "OUTPUT_DIR": str(tmp_path)})

    def run(*records):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            log_label_faults(cfg, records)
        return [x.getMessage() for x in caplog.records if x.name == "ion_d2.data.label_faults"]

    return run


def test_a_training_hears_of_boxes_that_the_readers_cut(told, tmp_path):
    """A box of 40 x 30 beyond the border, in each format that clips; another by one pixel."""
    write_voc(tmp_path, {"a": [object_xml("cat", box) for box in ((5, 5, 90, 60), (9, 9, 41, 20))]})
    (tmp_path / "data.yaml").write_text("names: [cat]\ntrain: JPEGImages\n")
    for name, text in {
        "a.txt": "0 0.8 0.5 0.6 0.5\n0 0.5 0.5 1.01 0.3\n",
        "a.json": json.dumps({"shapes": [shape(50, 60), shape(40.9, 20)], "imagePath": "a.jpg"}),
    }.items():
        (tmp_path / "JPEGImages" / name).write_text(text)
    folder = tmp_path / "JPEGImages"
    for name in (f"voc:{tmp_path}:train", f"yolo:{tmp_path}/data.yaml:train", f"labelme:{folder}"):
        ensure_registered([name])
        line = told(*DatasetCatalog.get(name))[0]
        assert f"1 box(es) beyond the border of the picture, the first in {folder}/a.jpg" in line


def shape(x, y):
    return {"label": "cat", "shape_type": "rectangle", "points": [[3, 3], [x, y]]}


def test_the_command_is_one_wherever_the_user_is(told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = shlex.split(told(record((60, 20, 230, 90)))[-1].split(": ", 2)[2])
    assert Path(command[1]).resolve() == Path(__file__).parents[2] / "tools/check_dataset.py"


def test_a_training_hears_of_faults_and_of_the_command_that_tells_more(told, tmp_path):
    box, dog = (10, 10, 50, 50), record((60, 60, 90, 90), category_id=1)
    assert told(record(box), dog) == []
    (tmp_path / "config.yaml").touch()
    lines = told(record(box, box, (60, 20, 230, 90), (5, 5, 6.5, 6.5)))
    words = ("tools/check_dataset.py", "mine", "a b", "--config-file", f"{tmp_path}/config.yaml")
    assert [line.removeprefix("Training labels: ") for line in lines] == [
        "1 box(es) beyond the border of the picture, the first in a.jpg",
        "1 box(es) that repeat another of the same class, the first in a.jpg",
        "1 object(s) that no anchor comes near (MODEL.RPN.IOU_THRESHOLDS), the first in a.jpg",
        "no object of 1 class(es): dog",
        f"more, and what to do: {python_command(*words)}",
    ]
