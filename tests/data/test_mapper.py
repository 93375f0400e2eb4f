import copy

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, BoxMode
from PIL import Image
from voc_folder import COCO_VOC20, write_image, write_label

from ion_d2.config import add_ion_config
from ion_d2.data.mapper import IONDatasetMapper
from ion_d2.data.voc_layout import find_classes, load_voc_layout
from ion_d2.errors import IONError

WIDTH, HEIGHT = 40, 30


def make_config(*opts):
    cfg = get_cfg()
    add_ion_config(cfg)
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TEST = (HEIGHT,), HEIGHT
    cfg.INPUT.RANDOM_FLIP = "none"
    cfg.MODEL.SEG_REGULARIZER_ON = True
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 3
    cfg.merge_from_list(list(opts))
    return cfg


def make_mapper(*opts, is_train=True, then=None):
    """A mapper with options, and an augmentation after the config's."""
    mapper = IONDatasetMapper(make_config(*opts), is_train=is_train)
    mapper.augmentations.augs += [then] if then else []
    return mapper


def box(bbox, category_id=0, **more):
    return {"bbox": bbox, "bbox_mode": BoxMode.XYXY_ABS, "category_id": category_id, **more}


@pytest.fixture
def ids():
    return np.random.default_rng(0).choice(np.array([0, 1, 2, 255], np.uint8), (HEIGHT, WIDTH))


@pytest.fixture
def record(tmp_path, ids):
    return {
        "file_name": str(write_image(tmp_path / "a.png", (WIDTH, HEIGHT))),
        "sem_seg_file_name": str(write_label(tmp_path / "label.png", ids)),
        "image_id": "a",
        "width": WIDTH,
        "height": HEIGHT,
        "annotations": [
            box([0, 0, 10, 20], 1, difficult=0, iscrowd=0),
            box([5, 6, 40, 30], 0, difficult=1, iscrowd=0),
            box([1, 1, 9, 9], 1, difficult=0, iscrowd=1),
        ],
    }


def test_training_output_without_resizing(record, ids):
    before = copy.deepcopy(record)
    data = make_mapper()(record)
    assert record == before
    pixels = np.asarray(Image.open(record["file_name"]))[:, :, ::-1].transpose(2, 0, 1)
    assert data["image"].dtype == torch.uint8
    np.testing.assert_array_equal(data["image"], pixels)
    assert data["sem_seg"].dtype == torch.int64
    np.testing.assert_array_equal(data["sem_seg"], ids)
    assert data["instances"].gt_boxes.tensor.tolist() == [[0, 0, 10, 20]]
    assert data["instances"].gt_classes.tolist() == [1]
    assert not {"annotations", "sem_seg_file_name"} & set(data)


def test_difficult_objects_are_a_choice_and_crowds_are_not(record):
    data = make_mapper("DATASETS.USE_DIFFICULT", True)(record)
    assert data["instances"].gt_classes.tolist() == [1, 0]


def test_a_picture_of_difficult_objects_alone_is_no_background(record):
    """Under Detectron2's loader, which draws another for None; ION's trainer leaves it out."""
    record["annotations"] = [box([5, 6, 40, 30], difficult=1), box([1, 1, 9, 9], iscrowd=1)]
    assert make_mapper()(record) is None
    assert len(make_mapper("DATASETS.USE_DIFFICULT", True)(record)["instances"]) == 1
    keeping = make_mapper("DATALOADER.FILTER_EMPTY_ANNOTATIONS", False)
    assert len(keeping(record)["instances"]) == 0
    assert len(make_mapper()({**record, "annotations": []})["instances"]) == 0
    assert "image" in make_mapper(is_train=False)(record)


def test_label_and_boxes_follow_resize_and_flip(record, ids):
    data = make_mapper("INPUT.MIN_SIZE_TRAIN", (2 * HEIGHT,), then=T.RandomFlip(prob=1.0))(record)
    np.testing.assert_array_equal(data["sem_seg"], ids.repeat(2, 0).repeat(2, 1)[:, ::-1])
    assert data["instances"].gt_boxes.tensor.tolist() == [[60, 0, 80, 40]]
    assert data["image"].shape == (3, 60, 80)


def test_crop_moves_image_label_and_boxes_alike(record, tmp_path):
    """The picture's red channel repeats the label, so both must come out equal."""
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    ids[8:20, 4:30] = 2
    write_label(tmp_path / "label.png", ids)
    Image.fromarray(np.stack([ids] * 3, axis=-1)).save(record["file_name"])
    record["annotations"] = [box([4, 8, 30, 20])]
    crop = ("INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "relative")
    sizes = ("INPUT.CROP.SIZE", [0.5, 0.5], "INPUT.MIN_SIZE_TRAIN", (15,))  # 0.5 * 30: no resizing
    mapper = make_mapper(*crop, *sizes)
    np.random.seed(3)
    for _ in range(5):
        data = mapper(record)
        assert data["sem_seg"].shape == (15, 20)
        np.testing.assert_array_equal(data["image"][0], data["sem_seg"])
        rows, columns = np.nonzero(data["sem_seg"].numpy())
        expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert data["instances"].gt_boxes.tensor[0].tolist() == expected


def test_augmentations_may_ask_for_boxes_and_labels(record, ids):
    seen = {}

    class Spy(T.Augmentation):
        def get_transform(self, image, boxes, sem_seg):
            seen.update(boxes=boxes, sem_seg=sem_seg)
            return T.NoOpTransform()

    make_mapper(then=Spy())(record)
    assert seen["boxes"].tolist() == [[0, 0, 10, 20]]
    np.testing.assert_array_equal(seen["sem_seg"], ids)


def test_images_without_objects_or_label(record):
    del record["sem_seg_file_name"]
    record["annotations"] = []
    data = make_mapper()(record)
    assert data["instances"].gt_boxes.tensor.shape == (0, 4)
    assert "sem_seg" not in data


def test_objects_that_a_crop_leaves_out_are_gone(record):
    crop = T.AugmentationList([T.CropTransform(20, 0, 20, 30)])
    assert len(make_mapper(then=crop)(record)["instances"]) == 0


@pytest.mark.parametrize("is_train", [True, False])
def test_no_label_is_opened_when_none_is_wanted(record, tmp_path, is_train):
    (tmp_path / "label.png").unlink()
    data = make_mapper("MODEL.SEG_REGULARIZER_ON", not is_train, is_train=is_train)(record)
    assert not {"sem_seg", "annotations"} & data.keys()
    assert ("instances" in data) == is_train


def test_wrong_labels_are_named(record, tmp_path):
    mapper = make_mapper()
    write_label(tmp_path / "label.png", np.full((HEIGHT, WIDTH), 3))
    with pytest.raises(IONError, match=r"label\.png holds the id\(s\) 3"):
        mapper(record)
    write_label(tmp_path / "label.png", np.zeros((WIDTH, HEIGHT)))
    with pytest.raises(IONError, match=r"label\.png is 30x40 pixels.*a\.png is 40x30"):
        mapper(record)
    (tmp_path / "label.png").unlink()
    with pytest.raises(IONError, match=r"label\.png cannot be read"):
        mapper(record)


@pytest.mark.parametrize("is_train", [True, False])
def test_undecodable_pictures_stop_unless_skipped_in_training(record, tmp_path, caplog, is_train):
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:600])
    with pytest.raises(IONError, match=r"a\.png .*INPUT\.SKIP_UNREADABLE True"):
        make_mapper(is_train=is_train)(record)
    mapper = make_mapper("INPUT.SKIP_UNREADABLE", True, is_train=is_train)
    if is_train:
        assert mapper(record) is None
        assert "a.png" in caplog.text
    else:
        with pytest.raises(IONError, match=r"a\.png"):
            mapper(record)


@pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
def test_masks_keypoints_and_proposals_come_out_as_from_detectron2s_mapper(record, mask_format):
    crop = mask_format == "bitmask"  # polygons are cropped by a library that is not required
    record["annotations"] = [
        box([5, 5, 20, 25], segmentation=_mask(5, 5, 20, 25, crop), keypoints=[6, 7, 2] * 17),
        box([8, 9, 30, 22], 1, segmentation=_mask(8, 9, 30, 22, crop), keypoints=[9, 9, 1] * 17),
    ]
    record["proposal_boxes"] = np.array([[1.0, 2.0, 30.0, 20.0], [4.0, 4.0, 9.0, 9.0]])
    record["proposal_objectness_logits"] = np.array([2.0, 1.0])
    record["proposal_bbox_mode"] = BoxMode.XYXY_ABS
    del record["sem_seg_file_name"]
    opts = ("MODEL.MASK_ON", True, "MODEL.KEYPOINT_ON", True, "MODEL.LOAD_PROPOSALS", True)
    cfg = make_config(*opts, "INPUT.MIN_SIZE_TRAIN", (45,), "INPUT.RANDOM_FLIP", "horizontal")
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.MASK_FORMAT = crop, mask_format
    cfg.DATASETS.TRAIN = ("keypoints_coco_2017_val",)
    ours, theirs = IONDatasetMapper(cfg, is_train=True), DatasetMapper(cfg, is_train=True)
    for seed in range(6):
        np.random.seed(seed)
        mine = ours(copy.deepcopy(record))
        np.random.seed(seed)
        other = theirs(copy.deepcopy(record))
        assert torch.equal(mine["image"], other["image"])
        assert_same_instances(mine["instances"], other["instances"])
        boxes = [each["proposals"].proposal_boxes.tensor for each in (mine, other)]
        assert torch.equal(*boxes)


def _mask(x0, y0, x1, y1, run_lengths):
    """A triangle as a polygon, or as COCO's run lengths."""
    polygon = [[float(v) for v in (x0, y0, x1, y0, x1, y1)]]
    runs = mask_util.merge(mask_util.frPyObjects(polygon, HEIGHT, WIDTH))
    return runs if run_lengths else polygon


def assert_same_instances(mine, other):
    assert set(mine.get_fields()) == set(other.get_fields())
    assert torch.equal(mine.gt_boxes.tensor, other.gt_boxes.tensor)
    assert torch.equal(mine.gt_classes, other.gt_classes)
    if mine.has("gt_keypoints"):
        assert torch.equal(mine.gt_keypoints.tensor, other.gt_keypoints.tensor)
    assert len(mine.gt_masks) == len(other.gt_masks)
    stored = "tensor" if isinstance(mine.gt_masks, BitMasks) else "polygons"
    for left, right in zip(getattr(mine.gt_masks, stored), getattr(other.gt_masks, stored)):
        np.testing.assert_array_equal(left, right)


def test_explicit_arguments_work_as_well(record):
    mapper = IONDatasetMapper(False, augmentations=[], image_format="RGB")
    pixels = np.asarray(Image.open(record["file_name"])).transpose(2, 0, 1)
    np.testing.assert_array_equal(mapper(record)["image"], pixels)


@pytest.mark.skipif(not COCO_VOC20.is_dir(), reason="the coco_voc20 data is not there")
def test_real_images_and_labels_keep_their_meaning():
    """Box centers of unhidden objects fall on their own class after resize and flip."""
    classes = find_classes(COCO_VOC20)
    opts = ["INPUT.MIN_SIZE_TRAIN", (240,), "INPUT.RANDOM_FLIP", "horizontal"]
    mapper = make_mapper(*opts, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 21)
    np.random.seed(0)
    hits = []
    for record in load_voc_layout(COCO_VOC20, "val", classes):
        data = mapper(record)
        assert data["sem_seg"].shape == data["image"].shape[1:]
        boxes, instances = data["instances"].gt_boxes, data["instances"]
        for (x, y), label in zip(boxes.get_centers().long().tolist(), instances.gt_classes):
            hits.append(int(data["sem_seg"][y, x]) == int(label) + 1)
    assert np.mean(hits) > 0.6
