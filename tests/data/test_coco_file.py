"""Every field of a COCO file is used rightly, in training and evaluation alike, or told."""

from __future__ import annotations

import copy
import json
import math

import numpy as np
import pytest
import torch
from coco_json import BLUE, RED, SIZE, write_coco
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json, register_coco_instances
from detectron2.structures import Boxes, Instances
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ion_d2.config import add_ion_config
from ion_d2.data.catalog import class_names, ensure_registered
from ion_d2.data.coco_file import read_coco_file
from ion_d2.data.mapper import IONDatasetMapper
from ion_d2.engine.fit_config import check_num_classes
from ion_d2.errors import IONError
from ion_d2.evaluation import IONCOCOEvaluator
from ion_d2.evaluation.coco_style import coco_figures, evaluate_coco_file

pytestmark = pytest.mark.usefixtures("catalogs")

# x, y, width, height of the objects, by number of the image.
TRUE_BOXES = {1: [[5, 4, 40, 40], [12, 9, 14, 14]], 2: [[30, 8, 50, 50], [40, 20, 11, 11]]}
TRUE_CLASSES = {1: [0, 1], 2: [1, 0]}


@pytest.fixture
def coco(tmp_path):
    return write_coco(
        tmp_path,
        [(RED, 5, 4, 40, "polygon"), (BLUE, 12, 9, 14, "runs")],
        [(BLUE, 30, 8, 50, "compressed"), (RED, 40, 20, 11, "polygon")],
    )


def change_file(name, change):
    """Change the JSON of a dataset; its path."""
    path = name[len("coco:") :].split(".json")[0] + ".json"
    with open(path) as file:
        content = json.load(file)
    content = change(content) or content
    with open(path, "w") as file:
        json.dump(content, file)
    return path


def figures_of_perfect(name, image_ids=(1, 2)):
    """AP50 of the true boxes as detections, by the evaluator and by the report."""
    evaluator = IONCOCOEvaluator(name, use_fast_impl=False)
    evaluator.reset()
    results = []
    for number, image_id in enumerate(image_ids, start=1):
        found = Instances(SIZE[::-1])
        boxes = torch.tensor(TRUE_BOXES[number], dtype=torch.float32)
        found.pred_boxes = Boxes(torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1))
        found.scores = torch.tensor([0.9, 0.8])
        found.pred_classes = torch.tensor(TRUE_CLASSES[number])
        evaluator.process([{"image_id": image_id}], [{"instances": found}])
        results += evaluator._predictions[-1]["instances"]
    file = MetadataCatalog.get(name).json_file
    ids = [category["id"] for category in read_coco_file(file)["categories"]]
    report = [{**r, "category_id": ids[r["category_id"]]} for r in results]
    return evaluator.evaluate()["bbox"]["AP50"], coco_figures(evaluate_coco_file(file, report))[
        "AP50"
    ]


def trained(name):
    """Boxes and classes of the dicts, by file name."""
    return {
        record["file_name"].rsplit("/", 1)[1]: [
            (a["bbox"], a["category_id"]) for a in record["annotations"]
        ]
        for record in DatasetCatalog.get(name)
    }


RIGHT = {f"{n}.png": list(zip(TRUE_BOXES[n], TRUE_CLASSES[n])) for n in (1, 2)}


def every(part, **fields):
    """A change of all entries of a part: to a value, to what a function makes, or away (...)."""

    def change(content):
        for index, entry in enumerate(content[part]):
            for field, value in fields.items():
                if value is ...:
                    del entry[field]
                else:
                    entry[field] = value(entry, index) if callable(value) else value

    return change


def renumber(convert):
    """A change of all ids of images and categories, in both places."""

    def change(content):
        for part, fields in (
            ("images", ("id",)),
            ("categories", ("id",)),
            ("annotations", ("image_id", "category_id")),
        ):
            for entry in content[part]:
                entry.update({field: convert(entry[field]) for field in fields})

    return change


def turn(sides):
    """A change of the boxes to ones that start in another corner."""

    def turned(entry, _):
        x, y, width, height = entry["bbox"]
        if "x" in sides:
            x, width = x + width, -width
        if "y" in sides:
            y, height = y + height, -height
        return [x, y, width, height]

    return every("annotations", bbox=turned, area=lambda e, _: e["bbox"][2] * e["bbox"][3])


USED = {
    "ids from 0": every("annotations", id=lambda _, i: i),
    "ids from -1": every("annotations", id=lambda _, i: i - 1),
    "ids all the same": every("annotations", id=1),
    "ids null": every("annotations", id=None),
    "ids missing": every("annotations", id=...),
    "ids text": every("annotations", id=lambda _, i: f"a{i}"),
    "ids lists": every("annotations", id=[1]),
    "ids as text": renumber(str),
    "ids as float": renumber(float),
    "ids from 0 everywhere": renumber(lambda number: {1: 0, 2: 1, 3: 0, 7: 4}[number]),
    "ids are words": renumber(lambda number: {1: "a", 2: "b", 3: "k", 7: "l"}[number]),
    "iscrowd null": every("annotations", iscrowd=None),
    "iscrowd missing": every("annotations", iscrowd=...),
    "iscrowd false": every("annotations", iscrowd=False),
    "iscrowd 0.0": every("annotations", iscrowd=0.0),
    "area null": every("annotations", area=None),
    "area missing": every("annotations", area=...),
    "area negative": every("annotations", area=lambda e, _: -e["area"]),
    "ignore 0": every("annotations", ignore=0),
    "mask null": every("annotations", segmentation=None),
    "mask []": every("annotations", segmentation=[]),
    "mask [[]]": every("annotations", segmentation=[[]]),
    "mask {}": every("annotations", segmentation={}),
    "mask missing": every("annotations", segmentation=...),
    "mask of two points": every("annotations", segmentation=[[1, 1, 5, 5]]),
    "some masks [[]]": every("annotations", segmentation=lambda e, i: [[]] if i % 2 else None),
    "turned width": turn("x"),
    "turned height": turn("y"),
    "turned both": turn("xy"),
    "sizes as float": every("images", width=96.0, height=64.0),
    "keypoints null": every("annotations", keypoints=None),
    "further fields": every("annotations", attributes={"a": [None]}, score="x"),
    "no info": lambda content: {k: v for k, v in content.items() if k != "info"},
}  # fmt: skip


@pytest.mark.parametrize("change", USED.values(), ids=USED)
def test_what_can_be_used_counts_in_training_evaluation_and_report(coco, change):
    change_file(coco, change)
    ensure_registered([coco])
    assert trained(coco) == RIGHT
    ids = [record["image_id"] for record in DatasetCatalog.get(coco)]
    assert figures_of_perfect(coco, ids) == pytest.approx((100, 100))


NAN, INF = math.nan, math.inf
TOLD = [
    *(
        ("annotations", {"bbox": value})
        for value in (..., None, [], [1, 2, 3], [1, 2, 3, 4, 5], [1, 2, 3, "4"], "1,2,3,4", 7,
                      [1, 2, 3, None], [1, 2, NAN, 4], [INF, 2, 3, 4], [1, 2, 3, True],
                      [1, 2, 1e30, 4], [1, 2, 10**400, 4], {"x": 1}, [[1, 2, 3, 4]])
    ),
    *(("annotations", {"iscrowd": value}) for value in ("0", "false", [], {}, 2, -1, NAN, 0.5)),
    *(("annotations", {"area": value}) for value in ("1600", [1600], {}, NAN, INF, True)),
    *(("annotations", {"image_id": value}) for value in (..., None, 99, "", "1", [1], True, 1.5)),
    *(("annotations", {"category_id": value}) for value in (..., None, 99, -1, "3", {}, NAN)),
    *(
        ("annotations", {"segmentation": value})
        for value in ("10,10,50,10,50,50", [10, 10, 50, 10, 50, 50], [[1, 1, 5, 1, 5, 5, 1]],
                      [[1, 1, 5, 1, 5, NAN]], [[1, 1, 5, 1, 5, 1e12]], [["1"] * 6], [None], 7,
                      [{"x": 1, "y": 2}], {"size": [64, 96]}, {"size": [96, 64], "counts": [6144]},
                      {"size": [64, 96], "counts": [5]}, {"size": [64, 96], "counts": None},
                      {"counts": [6144]}, {"size": [64, 96], "counts": "~"})
    ),
    *(("annotations", {"keypoints": value}) for value in ("a", [1, 2], [1, 2, None], [1, 2, 3], 5)),
    ("annotations", {"ignore": 1}),
    *(("images", {"id": value}) for value in (..., None, 2, "2", [1], 1.5, True, "", "x")),
    *(("images", {"file_name": value}) for value in (..., None, "", 7, "2.png", ["1.png"])),
    *(("images", {"width": value}) for value in (..., None, "96", 0, -96, 96.5, NAN, [96], True)),
    *(("images", {"height": value}) for value in (..., None, 0)),
    *(("categories", {"id": value}) for value in (..., None, 3, "3", "x", [], 0.5, False, " ")),
    *(("categories", {"name": value}) for value in (..., None, "", " ", "red", 1.5, True, ["x"],
                                                     "a\nb", "a\u2028b", "\ud800")),
]  # fmt: skip


@pytest.mark.parametrize(("part", "change"), TOLD)
def test_what_cannot_be_used_is_told_by_file_place_and_field(coco, part, change):
    (field,), place = change, part.rstrip("s")

    def first(content):
        every(part, **change)({part: content[part][:1]})

    path = change_file(coco, first)
    with pytest.raises(IONError) as caught:
        ensure_registered([coco])
        DatasetCatalog.get(coco)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and len(message.splitlines()) == 1
    assert field in message and place[:6] in message and len(message) < len(path) + 300
    if part == "annotations":
        assert "annotation id 1 (annotations[0])" in message
        assert "image 1.png (id 1)" in message or field == "image_id"


A = {"categories": [{"id": 1, "name": "a"}]}


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ([], "categories"),
        (None, "categories"),
        ("text", "categories"),
        ({"categories": {"1": "cat"}}, "categories"),
        ({"categories": ["cat"]}, "categories"),
        ({"categories": []}, "categories"),
        (A, "images"),
        ({**A, "images": {}}, "images"),
        ({**A, "images": [5]}, "images"),
        ({**A, "images": [], "annotations": None}, "annotations"),
        ({**A, "images": [], "annotations": [[]]}, "annotations"),
    ],
)
def test_files_of_another_layout_are_told(coco, content, word):
    path = coco[len("coco:") :].split(".json")[0] + ".json"
    with open(path, "w") as file:
        json.dump(content, file)
    with pytest.raises(IONError, match=word) as caught:
        ensure_registered([coco])
        DatasetCatalog.get(coco)
    assert path in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_pictures_that_share_an_id_or_a_file_are_told_by_both(coco):
    path = change_file(coco, every("images", id=1))
    ensure_registered([coco])
    with pytest.raises(IONError) as caught:
        DatasetCatalog.get(coco)
    for word in (path, "images[1] (2.png)", "the id 1 of images[0] (1.png)"):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("names", "expected"), [((7, 8), ["8", "7"]), (("e\u0301", "\u732b"), ["\u732b", "\xe9"])]
)
def test_names_are_text_in_one_form(coco, names, expected):
    change_file(coco, every("categories", name=lambda _, i: names[i]))
    assert class_names([coco]) == expected
    DatasetCatalog.get(coco)


def test_names_in_both_forms_of_unicode_are_one_name_twice(coco):
    change_file(coco, every("categories", name=lambda _, i: ("e\u0301", "\xe9")[i]))
    with pytest.raises(IONError, match=r"categories\[1\].*name '\u00e9' of categories\[0\]"):
        ensure_registered([coco])


@pytest.mark.parametrize(
    "box", [[9, 9, 0, 20], [9, 9, 20, 0], [96, 9, 5, 5], [9, 64, 5, 5], [-9, 9, 9, 9], [0] * 4]
)
def test_boxes_without_a_pixel_in_the_picture_are_left_out_with_a_warning(coco, box, caplog):
    def add(content):
        extra = {"id": 9, "image_id": 2, "category_id": 3, "bbox": box, "area": 0, "iscrowd": 0}
        content["annotations"].append(extra)

    path = change_file(coco, add)
    ensure_registered([coco])
    with caplog.at_level("WARNING"):
        assert trained(coco) == RIGHT
    assert f"{path}: 1 boxes without a pixel" in caplog.text
    assert "annotation id 9 (annotations[4]) of image 2.png" in caplog.text
    assert figures_of_perfect(coco) == pytest.approx((100, 100))


def test_a_byte_order_mark_is_no_fault(coco, tmp_path):
    path = tmp_path / "all.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    ensure_registered([coco])
    assert trained(coco) == RIGHT


def test_a_sound_file_is_read_as_detectron2_reads_it(coco, tmp_path):
    register_coco_instances("theirs", {}, f"{tmp_path}/all.json", f"{tmp_path}/pictures")
    expected = load_coco_json(f"{tmp_path}/all.json", f"{tmp_path}/pictures", "another")
    ensure_registered([coco, "theirs"])
    for name in (coco, "theirs"):
        assert DatasetCatalog.get(name) == expected
        metadata, another = MetadataCatalog.get(name), MetadataCatalog.get("another")
        assert metadata.thing_classes == another.thing_classes
        mapping = metadata.thing_dataset_id_to_contiguous_id
        assert mapping == another.thing_dataset_id_to_contiguous_id


def mess_up(content):
    """Spoil a file in many ways at once, none of which changes what it says."""
    renumber(str)(content)
    for index, entry in enumerate(content["annotations"]):
        entry["id"] = index // 2 or None
        entry["iscrowd"] = (None, 0, False)[index % 3] if not entry["iscrowd"] else True
        if index % 4 == 1:
            x, y, width, height = entry["bbox"]
            entry["bbox"] = [x + width, y + height, -width, -height]
        if index % 5 == 2:
            entry["segmentation"] = [[]]


def test_figures_of_a_messy_file_are_pycocotools_on_the_clean_one(tmp_path):
    """Random boxes, crowds and detections, evaluated by pycocotools without any code of ours."""
    rng = np.random.default_rng(5)
    images = [{"id": i, "file_name": f"{i}.png", "width": 300, "height": 200} for i in range(1, 13)]
    content = {"images": images, "annotations": [], "categories": [
        {"id": 4, "name": "a"}, {"id": 9, "name": "b"}]}  # fmt: skip
    results = []
    for image in images:
        for _ in range(6):
            x, y, w, h = (float(v) for v in rng.uniform([0, 0, 8, 8], [150, 90, 140, 105]).round(2))
            entry = {"image_id": image["id"], "category_id": int(rng.choice([4, 9]))}
            content["annotations"].append({
                **entry, "id": len(content["annotations"]) + 1, "bbox": [x, y, w, h],
                "area": w * h * 0.7, "iscrowd": int(rng.random() < 0.15)})  # fmt: skip
            for noise in (2, 9):
                box = [x, y, w, h] + rng.normal(0, noise, 4)
                box[2:] = np.maximum(box[2:], 1)
                results.append({**entry, "bbox": box.tolist(), "score": float(rng.random())})
    clean, messy = tmp_path / "clean.json", tmp_path / "messy.json"
    clean.write_text(json.dumps(content))
    spoiled = copy.deepcopy(content)
    mess_up(spoiled)
    messy.write_text(json.dumps(spoiled))
    truth = COCO(str(clean))
    expected = COCOeval(truth, truth.loadRes(results), "bbox")
    for step in (expected.evaluate, expected.accumulate, expected.summarize):
        step()
    as_text = [{**r, "image_id": str(r["image_id"]), "category_id": str(r["category_id"])}
               for r in results]  # fmt: skip
    assert 0.1 < expected.stats[0] < 0.9
    np.testing.assert_array_equal(evaluate_coco_file(str(messy), as_text).stats, expected.stats)
    np.testing.assert_array_equal(evaluate_coco_file(str(clean), results).stats, expected.stats)
    name = f"coco:{messy}:{tmp_path}"
    ensure_registered([name])
    evaluator = IONCOCOEvaluator(name, use_fast_impl=False)
    evaluator.reset()
    for image in images:
        mine = [r for r in results if r["image_id"] == image["id"]]
        found = Instances((200, 300))
        boxes = torch.tensor([r["bbox"] for r in mine], dtype=torch.float64)
        found.pred_boxes = Boxes(torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1))
        found.scores = torch.tensor([r["score"] for r in mine], dtype=torch.float64)
        found.pred_classes = torch.tensor([(4, 9).index(r["category_id"]) for r in mine])
        evaluator.process([{"image_id": image["id"]}], [{"instances": found}])
    figures = evaluator.evaluate()["bbox"]
    names = ("AP", "AP50", "AP75", "APs", "APm", "APl")
    measured = [figures[name] for name in names]
    np.testing.assert_allclose(measured, 100 * expected.stats[:6], atol=0.05)


def config(name):
    cfg = get_cfg()
    add_ion_config(cfg)
    cfg.MODEL.SEG_REGULARIZER_ON = True
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 0
    cfg.DATASETS.TRAIN = (name,)
    cfg.INPUT.FORMAT, cfg.INPUT.MIN_SIZE_TRAIN = "RGB", (128,)
    check_num_classes(cfg)
    return cfg


def test_labels_from_masks_have_the_pictures_colors_wherever_they_are_moved(coco):
    """From the file through flips, crops and doubling: red is 1, blue is 2, white is 0."""
    cfg = config(coco)
    assert cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 3
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.SIZE = True, [0.7, 0.7]
    mapper = IONDatasetMapper(cfg, is_train=True)
    seen = set()
    for seed in range(8):
        np.random.seed(seed)
        for record in DatasetCatalog.get(coco):
            data = mapper(record)
            red, green, blue = data["image"].numpy().astype(int)
            expected = np.select([(red > 250) & (green < 5), (blue > 250) & (green < 5)], [1, 2])
            # Between two colors, the picture is blended and the label is not.
            sure = ((red > 250) | (red < 5)) & ((green > 250) | (green < 5))
            sure &= (blue > 250) | (blue < 5)
            assert sure.mean() > 0.85
            np.testing.assert_array_equal(data["sem_seg"].numpy()[sure], expected[sure])
            seen |= set(np.unique(data["sem_seg"]))
    assert seen == {0, 1, 2}


def test_other_classes_than_registered_are_told(coco, tmp_path):
    for metadata in (
        {"thing_classes": ["blue", "red"]},
        {"thing_dataset_id_to_contiguous_id": {3: 1, 7: 0}},
    ):
        register_coco_instances(str(metadata), metadata, f"{tmp_path}/all.json", str(tmp_path))
        ensure_registered([str(metadata)])
        with pytest.raises(IONError, match="all.json.*red, blue.*3, 7.*registered"):
            DatasetCatalog.get(str(metadata))


def test_functions_of_users_stay(coco, tmp_path):
    def load():
        return load_coco_json(f"{tmp_path}/all.json", f"{tmp_path}/pictures", "mine")[:1]

    DatasetCatalog.register("mine", load)
    metadata = {"json_file": f"{tmp_path}/all.json", "image_root": f"{tmp_path}/pictures"}
    MetadataCatalog.get("mine").set(evaluator_type="coco", **metadata)
    ensure_registered(["mine"])
    assert DatasetCatalog.get("mine") == load()
