"""COCO files as datasets: what Detectron2's catalogs and the mapper get of them."""

from __future__ import annotations

import json
import unicodedata

import numpy as np
import pytest
from coco_json import TWO, write_coco
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json, register_coco_instances
from model_helpers import small_config

from ion_d2.data.catalog import ensure_registered
from ion_d2.data.mapper import IONDatasetMapper
from ion_d2.engine.fit_config import check_num_classes
from ion_d2.errors import IONError

pytestmark = pytest.mark.usefixtures("catalogs")


@pytest.fixture
def coco(tmp_path):
    return write_coco(tmp_path, *TWO)


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


def test_labels_from_masks_have_the_pictures_colors_wherever_they_are_moved(coco):
    """From the file through flips, crops and doubling: red is 1, blue is 2, white is 0."""
    counts = ["MODEL.ROI_HEADS.NUM_CLASSES", 0, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 0]
    sizes = ["INPUT.MIN_SIZE_TRAIN", "(128,)", "INPUT.CROP.ENABLED", True]
    cfg = small_config(
        "MODEL.SEG_REGULARIZER_ON", True, *counts, *sizes, "INPUT.CROP.SIZE", "[0.7, 0.7]"
    )
    cfg.defrost()
    cfg.DATASETS.TRAIN, cfg.INPUT.FORMAT = (coco,), "RGB"
    check_num_classes(cfg)
    assert cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 3
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


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_as_windows_and_other_systems_write_them(coco, tmp_path, form):
    content = json.loads((tmp_path / "all.json").read_text())
    image = content["images"][0]
    picture = tmp_path / "pictures" / "sub" / unicodedata.normalize(form, "Käfer.png")
    picture.parent.mkdir()
    (tmp_path / "pictures" / image["file_name"]).rename(picture)
    for name in (f"sub\\{picture.name}", "sub/" + unicodedata.normalize("NFC", picture.name)):
        image["file_name"] = name
        (tmp_path / "all.json").write_text(json.dumps(content))
        ensure_registered([coco])
        assert str(picture) in [record["file_name"] for record in DatasetCatalog.get(coco)]


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
