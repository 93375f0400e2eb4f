import json

import numpy as np
import pytest
from coco_json import BLUE, RED, write_coco
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances

from ion_d2.config import add_ion_config
from ion_d2.data.catalog import check_num_classes, ensure_registered
from ion_d2.data.coco_file import CheckedLoader
from ion_d2.data.mapper import IONDatasetMapper
from ion_d2.errors import IONError

pytestmark = pytest.mark.usefixtures("catalogs")


@pytest.fixture
def coco(tmp_path):
    return write_coco(
        tmp_path,
        [(RED, 5, 4, 40, "polygon"), (BLUE, 12, 9, 14, "runs")],
        [(BLUE, 30, 8, 50, "compressed"), (RED, 40, 20, 11, "polygon")],
    )


def config(name):
    cfg = get_cfg()
    add_ion_config(cfg)
    cfg.MODEL.SEG_REGULARIZER_ON = True
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 0
    cfg.DATASETS.TRAIN = (name,)
    cfg.INPUT.FORMAT, cfg.INPUT.MIN_SIZE_TRAIN = "RGB", (128,)
    check_num_classes(cfg)
    return cfg


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("annotations", {"bbox": None}, "annotation 1 of image .*1.png .*bbox None"),
        ("annotations", {"bbox": [1, 2, 3]}, r"annotation 1 of .*bbox \[1, 2, 3\], not four"),
        ("annotations", {"bbox": [1, 2, 3, "4"]}, ".*not four numbers"),
        ("images", {"width": "96"}, "image .*1.png .*width '96', not a number of pixels"),
        ("images", {"height": 0}, ".*height 0"),
    ],
)
def test_boxes_and_sizes_that_are_none_are_named(coco, tmp_path, part, change, words):
    content = json.loads((tmp_path / "all.json").read_text())
    content[part][0].update(change)
    if change == {"bbox": None}:
        del content[part][0]["bbox"]
    (tmp_path / "all.json").write_text(json.dumps(content))
    ensure_registered([coco])
    with pytest.raises(IONError, match=f"all.json: {words}"):
        DatasetCatalog.get(coco)


def test_labels_from_masks_have_the_pictures_colours_wherever_they_are_moved(coco):
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
            # Between two colours, the picture is blended and the label is not.
            sure = ((red > 250) | (red < 5)) & ((green > 250) | (green < 5))
            sure &= (blue > 250) | (blue < 5)
            assert sure.mean() > 0.85
            np.testing.assert_array_equal(data["sem_seg"].numpy()[sure], expected[sure])
            seen |= set(np.unique(data["sem_seg"]))
    assert seen == {0, 1, 2}


def broken(coco, change):
    """The message about the dataset after a change of its JSON."""
    path = coco[len("coco:") :].split(".json")[0] + ".json"
    with open(path) as file:
        content = json.load(file)
    change(content)
    with open(path, "w") as file:
        json.dump(content, file)
    with pytest.raises(IONError) as caught:
        ensure_registered([coco])
        DatasetCatalog.get(coco)
    assert path in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


def test_run_lengths_of_the_wrong_size_name_file_and_image(coco):
    def swap(content):
        content["annotations"][1]["segmentation"]["size"] = [96, 64]

    message = broken(coco, swap)
    assert "annotation 2 of image" in message and "1.png (id 1)" in message
    assert "size [96, 64], not [64, 96]" in message


def test_run_lengths_that_cover_another_number_of_pixels(coco):
    def shorten(content):
        content["annotations"][1]["segmentation"]["counts"].pop()

    assert "1.png (id 1)" in broken(coco, shorten)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["annotations"][1]["segmentation"].pop("size"),
        lambda c: c["annotations"][1]["segmentation"].update(size=[1]),
        lambda c: c["annotations"][1]["segmentation"].update(counts=["x"]),
        lambda c: c["annotations"][1]["segmentation"].update(counts=[-5, 6]),
        lambda c: c["annotations"][0].update(category_id=99),
        lambda c: c["annotations"][0].update(bbox=[]),
        lambda c: c["annotations"][0].update(id=2),
        lambda c: c["annotations"][0].pop("image_id"),
        lambda c: c["images"][0].pop("height"),
        lambda c: c.update(images=5),
    ],
)
def test_other_faults_name_the_file(coco, change):
    broken(coco, change)


def test_detectron2s_own_datasets_are_checked_once(coco, tmp_path):
    register_coco_instances("theirs", {"extra": 1}, f"{tmp_path}/all.json", f"{tmp_path}/pictures")
    ensure_registered(["theirs"])
    ensure_registered(["theirs"])
    loader = DatasetCatalog.data["theirs"]
    assert isinstance(loader, CheckedLoader) and not isinstance(loader._load, CheckedLoader)
    assert len(DatasetCatalog.get("theirs")) == 2
    assert MetadataCatalog.get("theirs").thing_classes == ["red", "blue"]
