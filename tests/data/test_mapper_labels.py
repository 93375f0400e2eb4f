"""Labels of every kind through the mapper into the model."""

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from detectron2.utils.events import EventStorage
from model_helpers import small_config, small_model
from sbd_file import write_sbd
from voc_folder import write_image, write_label

from ion_d2.data.mapper import IONDatasetMapper
from ion_d2.errors import IONError

WIDTH, HEIGHT = 128, 96
SEG = ["MODEL.SEG_REGULARIZER_ON", True, "INPUT.MIN_SIZE_TRAIN", f"({HEIGHT},)"]


def ids_of_objects():
    ids = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    ids[10:60, 20:90], ids[30:50, 30:60], ids[70:90, 5:40] = 1, 3, 2
    return ids


def masked_objects(ids):
    """An object per class; the encoder knows where."""
    fields = {"iscrowd": 0, "bbox": [20, 10, 70, 50], "bbox_mode": BoxMode.XYWH_ABS}
    masks = [mask_util.encode(np.asfortranarray(ids == k).astype(np.uint8)) for k in (1, 2, 3)]
    return [{"segmentation": m, "category_id": k, **fields} for k, m in enumerate(masks)]


@pytest.fixture
def record(tmp_path):
    """Makes dicts of one picture with a label of a kind."""
    file_name = str(write_image(tmp_path / "a.png", (WIDTH, HEIGHT)))
    writers = {"png": (write_label, "a_label.png"), "mat": (write_sbd, "a.mat")}

    def make(kind):
        result = {"file_name": file_name, "image_id": kind, "width": WIDTH, "height": HEIGHT}
        result["annotations"] = masked_objects(ids_of_objects())
        if kind != "masks":
            for annotation in result["annotations"]:
                del annotation["segmentation"]
        if kind in writers:
            write, name = writers[kind]
            result["sem_seg_file_name"] = str(write(tmp_path / name, ids_of_objects()))
        return result

    return make


def test_masks_sbd_and_png_give_the_same_label_under_every_geometry(record):
    mapper = IONDatasetMapper(small_config(*SEG), is_train=True)
    mapper.augmentations.augs += [
        T.RandomFlip(), T.RandomRotation([-30, 30]), T.RandomCrop("relative_range", (0.5, 0.5)),
        T.ResizeShortestEdge((60, 90, 200), 300, "choice")]  # fmt: skip
    for seed in range(6):
        labels = []
        for kind in ("png", "mat", "masks"):
            np.random.seed(seed)
            labels.append(mapper(record(kind))["sem_seg"])
        assert torch.equal(labels[0], labels[1]) and torch.equal(labels[0], labels[2])
        assert len(labels[0].unique()) > 2


def test_a_file_goes_before_the_masks(record):
    both = record("masks")
    both["sem_seg_file_name"] = record("mat")["sem_seg_file_name"]
    write_sbd(both["sem_seg_file_name"], np.full((HEIGHT, WIDTH), 2))
    assert (IONDatasetMapper(small_config(*SEG), is_train=True)(both)["sem_seg"] == 2).all()


def test_masks_are_not_drawn_where_no_label_is_wanted(record):
    broken = record("masks")
    broken["annotations"][0]["segmentation"] = {"size": [1, 1], "counts": [1]}
    assert "sem_seg" not in IONDatasetMapper(small_config(), is_train=True)(broken)
    assert "sem_seg" not in IONDatasetMapper(small_config(*SEG), is_train=False)(broken)
    with pytest.raises(IONError, match=r"a\.png .*size \[1, 1\], not \[96, 128\]"):
        IONDatasetMapper(small_config(*SEG), is_train=True)(broken)


def test_more_classes_than_a_label_map_has_ids():
    with pytest.raises(IONError, match=r"SEM_SEG_HEAD\.NUM_CLASSES is 1204.*at most 254"):
        IONDatasetMapper(small_config(*SEG, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 1204), is_train=True)


@pytest.mark.parametrize("value", [-1, 256])
def test_the_ignored_id_is_one_of_a_label_map(value):
    with pytest.raises(IONError, match=rf"IGNORE_VALUE is {value}.* from 0 to 255"):
        IONDatasetMapper(
            small_config(*SEG, "MODEL.SEM_SEG_HEAD.IGNORE_VALUE", value), is_train=True
        )


def test_images_without_labels_mix_with_those_that_have_them(record):
    """Each counts as an image with a loss of 0: the others' gradients keep their direction."""
    mapper = IONDatasetMapper(small_config(*SEG, "INPUT.RANDOM_FLIP", "none"), is_train=True)
    model = small_model(*SEG).train()
    labeled = [mapper(record(kind)) for kind in ("png", "mat", "masks")]
    bare = mapper(record("none"))
    assert "sem_seg" not in bare and len(bare["instances"]) == 3
    alone, gradient = loss_and_gradient(model, labeled)
    mixed, mixed_gradient = loss_and_gradient(model, [bare, *labeled, bare])
    assert alone > 0.1
    torch.testing.assert_close(mixed, alone * 3 / 5)
    torch.testing.assert_close(mixed_gradient, gradient * 3 / 5)
    none, no_gradient = loss_and_gradient(model, [bare, bare])
    assert none == 0 and not no_gradient.any()


def loss_and_gradient(model, batch):
    model.zero_grad()
    with EventStorage():
        losses = model(batch)
    assert all(torch.isfinite(loss) for loss in losses.values())
    losses["loss_sem_seg"].backward()
    return losses["loss_sem_seg"].detach(), model.sem_seg_head.deconv.weight.grad.clone()
