"""The predictor's preprocessing against the dataset mapper's, and where class names come from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from PIL import Image
from torch import nn

import ion_d2  # noqa: F401 (registers the models)
from ion_d2.data.mapper import IONDatasetMapper
from ion_d2.engine.class_names import KEY
from ion_d2.engine.fit_config import settle_classes
from ion_d2.engine.predictor import IONPredictor
from ion_d2.engine.setup import load_config
from ion_d2.errors import IONError

CONFIG = str(Path(__file__).resolve().parents[2] / "configs/ion_tiny.yaml")
TINY = [
    *("MODEL.DEVICE", "cpu", "MODEL.VGG.WIDTH_MULTIPLIER", "0.0625"),
    *("MODEL.CONTEXT.HIDDEN_DIM", "8", "MODEL.CONTEXT.OUT_DIM", "8"),
    *("MODEL.SKIP_POOLER.OUT_CHANNELS", "8", "MODEL.SKIP_POOLER.SCALE_INIT", "10.0"),
    *("MODEL.ROI_BOX_HEAD.FC_DIM", "16", "MODEL.RPN.POST_NMS_TOPK_TEST", "30"),
    *("INPUT.MIN_SIZE_TEST", "64", "INPUT.MAX_SIZE_TEST", "96"),
]


def config(*opts):
    return load_config(CONFIG, [*TINY, *opts])


class Recorder(nn.Module):
    """Keeps what it is given and detects nothing."""

    def forward(self, batch):
        (self.given,) = batch
        found = Instances((self.given["height"], self.given["width"]))
        found.pred_boxes, found.scores = Boxes(torch.zeros(0, 4)), torch.zeros(0)
        found.pred_classes = torch.zeros(0, dtype=torch.int64)
        return [{"instances": found}]


@pytest.mark.parametrize("channels", ["RGB", "BGR"])
def test_channels_and_size_are_those_of_the_config(channels):
    image = np.zeros((100, 120, 3), np.uint8)
    image[:, :] = (10, 20, 30)  # blue, green, red
    model = Recorder()
    predictor = IONPredictor(config("INPUT.FORMAT", channels), model)
    found = predictor(image)["instances"]
    expected = [30.0, 20.0, 10.0] if channels == "RGB" else [10.0, 20.0, 30.0]
    assert model.given["image"].shape == (3, 64, 77)  # 120 * 64 / 100, rounded
    assert model.given["image"].float().mean(dim=(1, 2)).tolist() == expected
    assert found.image_size == (100, 120) and not model.training


def test_size_zero_keeps_the_picture_as_it_is():
    model, image = Recorder(), np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    IONPredictor(config("INPUT.MIN_SIZE_TEST", "0", "INPUT.FORMAT", "BGR"), model)(image)
    assert torch.equal(model.given["image"], torch.from_numpy(image).permute(2, 0, 1))


def test_saved_model_detects_the_same_as_in_evaluation(tmp_path):
    opts = ["MODEL.ROI_HEADS.NUM_CLASSES", "3", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.01"]
    torch.manual_seed(0)
    model = build_model(config(*opts)).eval()
    torch.save({"model": model.state_dict()}, tmp_path / "model.pth")
    pixels = np.random.default_rng(0).integers(0, 255, (80, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")

    cfg = config(*opts, "MODEL.WEIGHTS", str(tmp_path / "model.pth"))
    found = IONPredictor.from_config(cfg)(pixels[:, :, ::-1])["instances"]
    record = {"file_name": str(tmp_path / "a.png"), "image_id": "a", "height": 80, "width": 90}
    with torch.no_grad():
        expected = model([IONDatasetMapper(cfg, is_train=False)(record)])[0]["instances"]
    assert len(expected) > 0
    assert torch.equal(found.pred_boxes.tensor, expected.pred_boxes.tensor)
    assert torch.equal(found.scores, expected.scores)
    assert torch.equal(found.pred_classes, expected.pred_classes)


def test_weights_are_demanded():
    with pytest.raises(IONError, match=r"MODEL\.WEIGHTS is empty"):
        IONPredictor.from_config(config("MODEL.ROI_HEADS.NUM_CLASSES", "3"))


@pytest.fixture
def dataset():
    DatasetCatalog.register("predictor_test_data", lambda: [])
    MetadataCatalog.get("predictor_test_data").thing_classes = ["ant", "bee"]
    yield "predictor_test_data"
    DatasetCatalog.remove("predictor_test_data")
    MetadataCatalog.remove("predictor_test_data")


def named(test, classes="0"):
    names = f"('{test}',)" if test else "()"
    opts = ("DATASETS.TEST", names, "DATASETS.TRAIN", "()", "MODEL.ROI_HEADS.NUM_CLASSES", classes)
    return config(*opts)


def test_names_come_from_the_file_first(tmp_path, dataset):
    (tmp_path / "c.txt").write_text("one thing\n\n  two \n", encoding="utf-8")
    assert settle_classes(named(dataset), str(tmp_path / "c.txt")) == ["one thing", "two"]
    assert settle_classes(named(dataset)) == ["ant", "bee"]
    assert settle_classes(named(dataset, "2")) == ["ant", "bee"]


def test_the_file_is_read_as_a_dataset_reads_its_own(tmp_path, dataset):
    text = "\ufeff# ours\nbackground\none thing\ntwo\n"
    (tmp_path / "c.txt").write_text(text, encoding="utf-8")
    assert settle_classes(named(dataset), str(tmp_path / "c.txt")) == ["one thing", "two"]


def test_detectron2s_datasets_are_known_without_their_files():
    names = settle_classes(named("voc_2007_test", "20"))
    assert len(names) == 20 and {"aeroplane", "person"} <= set(names)


def test_numbers_where_the_dataset_is_another(dataset, caplog):
    numbers = [f"class {label}" for label in range(5)]
    assert settle_classes(named(dataset, "5")) == numbers
    assert "2 classes and the model 5" in caplog.text
    assert settle_classes(named("voc:/no/such/folder:test", "5")) == numbers
    assert "/no/such/folder" in caplog.text
    assert settle_classes(named("", "5")) == numbers


@pytest.fixture
def trained(tmp_path):
    """Weights of a model of the classes bee and ant."""
    torch.save({"model": {}, KEY: ["bee", "ant"]}, tmp_path / "trained.pth")
    return str(tmp_path / "trained.pth")


@pytest.mark.parametrize("data", ["", "voc:/no/such/folder:test", "predictor_test_data"])
@pytest.mark.parametrize("number", ["0", "2"])
def test_trained_weights_tell_their_names(trained, dataset, caplog, data, number):
    cfg = named(data, number)
    assert settle_classes(cfg, weights=trained) == ["bee", "ant"]
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 2
    assert ("trained.pth was trained on another order" in caplog.text) == (data == dataset)


def test_a_file_of_names_must_be_that_of_the_weights(tmp_path, trained, dataset):
    (tmp_path / "c.txt").write_text("bee\nant\n")
    assert settle_classes(named(dataset), str(tmp_path / "c.txt"), weights=trained)[0] == "bee"
    for text in ("ant\nbee\n", "bee\nwasp\n", "bee\nant\nwasp\n"):
        (tmp_path / "c.txt").write_text(text)
        with pytest.raises(IONError, match="trained.pth was trained on (an)?other"):
            settle_classes(named(dataset), str(tmp_path / "c.txt"), weights=trained)
    with pytest.raises(IONError, match="trained.pth names 2 .*NUM_CLASSES is 3.*'bee', 'ant'"):
        settle_classes(named(dataset, "3"), weights=trained)


def test_bad_class_files_are_named(tmp_path, dataset):
    with pytest.raises(IONError, match=r"none\.txt cannot be read"):
        settle_classes(named(dataset), str(tmp_path / "none.txt"))
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(IONError, match=r"empty\.txt names no class"):
        settle_classes(named(dataset), str(tmp_path / "empty.txt"))
    (tmp_path / "three.txt").write_text("a\nb\nc\n")
    with pytest.raises(IONError, match=r"names 3 classes, but .*NUM_CLASSES is 2"):
        settle_classes(named(dataset, "2"), str(tmp_path / "three.txt"))


def test_unknown_number_of_classes_is_an_error():
    with pytest.raises(IONError, match="--classes FILE"):
        settle_classes(named("voc:/no/such/folder:test", "0"))
