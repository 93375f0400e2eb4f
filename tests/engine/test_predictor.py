"""The predictor's pictures and preprocessing, and where class names come from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.detection_utils import read_image
from detectron2.structures import Instances
from model_helpers import small_config, small_model
from PIL import Image
from torch import nn

from ion_d2.data.mapper import IONDatasetMapper
from ion_d2.engine.class_names import KEY
from ion_d2.engine.fit_config import settle_classes
from ion_d2.engine.predictor import IONPredictor, Prediction, as_picture
from ion_d2.errors import IONError

BGR = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
GRAY = BGR[:, :, 0]


def config(*opts):
    return small_config("INPUT.MIN_SIZE_TEST", 64, "INPUT.MAX_SIZE_TEST", 96, *opts)


class Recorder(nn.Module):
    """Keeps what it is given and detects nothing."""

    def forward(self, batch):
        (self.given,) = batch
        return [{"instances": Instances((self.given["height"], self.given["width"]))}]


@pytest.mark.parametrize("channels", ["RGB", "BGR"])
def test_channels_and_size_are_those_of_the_config(channels):
    image = np.zeros((100, 120, 3), np.uint8)
    image[:, :] = (10, 20, 30)  # blue, green, red
    model = Recorder()
    found = IONPredictor(config("INPUT.FORMAT", channels), model)(image)["instances"]
    expected = [30.0, 20.0, 10.0] if channels == "RGB" else [10.0, 20.0, 30.0]
    assert model.given["image"].shape == (3, 64, 77)  # 120 * 64 / 100, rounded
    assert model.given["image"].float().mean(dim=(1, 2)).tolist() == expected
    assert found.image_size == (100, 120) and not model.training


def test_what_is_no_tensor_of_a_panoptic_model_is_left_out():
    class Panoptic(Recorder):
        def forward(self, batch):
            (found,) = super().forward(batch)
            seen = torch.zeros(1, 2, 2)
            return [{**found, "sem_seg": seen, "panoptic_seg": (seen[0], [{"id": 1}])}]

    assert IONPredictor(config(), Panoptic())(BGR).keys() == {"instances", "sem_seg"}


def test_size_zero_keeps_the_picture_as_it_is():
    model = Recorder()
    IONPredictor(config("INPUT.MIN_SIZE_TEST", 0, "INPUT.FORMAT", "BGR"), model)(BGR)
    assert torch.equal(model.given["image"], torch.from_numpy(BGR).permute(2, 0, 1))


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (BGR, BGR),
        (np.asfortranarray(BGR), BGR),
        (np.dstack([BGR, GRAY]), BGR),  # with alpha, which is dropped
        (GRAY, np.dstack([GRAY] * 3)),
        (GRAY[:, :, None], np.dstack([GRAY] * 3)),
    ],
    ids=["BGR", "Fortran order", "BGRA", "gray", "gray, one channel"],
)
def test_what_opencv_reads_is_taken(image, expected):
    assert np.array_equal(as_picture(image, "BGR"), expected)
    assert np.array_equal(as_picture(image, "RGB"), expected[:, :, ::-1])


def test_a_model_of_one_channel_gets_what_detectron2_reads(tmp_path):
    Image.fromarray(BGR[:, :, ::-1]).save(tmp_path / "a.png")
    assert np.array_equal(as_picture(BGR, "L"), read_image(str(tmp_path / "a.png"), "L"))
    assert np.array_equal(as_picture(GRAY, "L"), GRAY[:, :, None])


@pytest.mark.parametrize(
    ("image", "word"),
    [
        (None, "None"), ("a.jpg", "'a.jpg'"), (Image.fromarray(BGR), "Image"),
        (torch.from_numpy(BGR), "Tensor"), (BGR.tolist(), "list"), ([BGR, BGR], "list"),
        (BGR / 255, "float64"), (BGR.astype(np.float32), "float32"),
        (BGR.astype(np.uint16), "uint16"), (BGR.astype(np.int64), "int64"), (BGR > 9, "bool"),
        (BGR.astype(object), "object"), (BGR.transpose(2, 0, 1), "(3, 5, 7)"),
        (BGR[None], "(1, 5, 7, 3)"), (BGR[:0], "(0, 7, 3)"), (BGR[:, :0], "(5, 0, 3)"),
        (BGR[:, :, :2], "(5, 7, 2)"), (BGR[0, 0], "(3,)"),
    ],
)  # fmt: skip
def test_anything_else_is_told(image, word):
    with pytest.raises(IONError) as error:
        as_picture(image, "BGR")
    assert word in str(error.value)


def test_a_prediction_gives_the_fields_of_its_instances():
    class Found:
        scores = (0.5,)

    prediction = Prediction(instances=Found())
    assert list(prediction) == ["instances"] and prediction.scores == (0.5,)
    assert not hasattr(prediction, "nothing") and not hasattr(Prediction(), "scores")


def test_saved_model_detects_the_same_as_in_evaluation(tmp_path):
    opts = ("MODEL.SKIP_POOLER.SCALE_INIT", 10.0, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.01)
    model = small_model(*opts).eval()
    torch.save({"model": model.state_dict()}, tmp_path / "model.pth")
    pixels = np.random.default_rng(0).integers(0, 255, (80, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")

    cfg = config(*opts, "MODEL.WEIGHTS", tmp_path / "model.pth")
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
        IONPredictor.from_config(config())


def test_a_model_without_proposals_of_its_own_is_for_datasets_alone():
    opts = ("MODEL.PROPOSAL_GENERATOR.NAME", "PrecomputedProposals", "MODEL.LOAD_PROPOSALS", True)
    with pytest.raises(IONError, match="PrecomputedProposals, .*--eval-only"):
        IONPredictor.from_config(config(*opts, "MODEL.WEIGHTS", "a.pth"))


@pytest.mark.parametrize("loaded", [True, False])
def test_boxes_of_proposal_files_that_are_missing_are_told(tmp_path, caplog, loaded):
    torch.save({"model": small_model().state_dict()}, tmp_path / "model.pth")
    opts = ("MODEL.WEIGHTS", tmp_path / "model.pth", "MODEL.LOAD_PROPOSALS", loaded)
    IONPredictor.from_config(config(*opts))
    told = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert ["MODEL.LOAD_PROPOSALS is True" in message for message in told] == [True] * loaded


def test_no_picture_is_an_empty_batch():
    assert IONPredictor(config(), small_model()).predict_batch([]) == []


@pytest.fixture
def dataset():
    DatasetCatalog.register("predictor_test_data", lambda: [])
    MetadataCatalog.get("predictor_test_data").thing_classes = ["ant", "bee"]
    yield "predictor_test_data"
    DatasetCatalog.remove("predictor_test_data")
    MetadataCatalog.remove("predictor_test_data")


@pytest.fixture
def classes_file(tmp_path):
    """Writes a file of class names and gives its path."""

    def write(text):
        (tmp_path / "c.txt").write_text(text, encoding="utf-8")
        return str(tmp_path / "c.txt")

    return write


def named(test, classes="0"):
    names = f"('{test}',)" if test else "()"
    opts = ("DATASETS.TEST", names, "DATASETS.TRAIN", "()", "MODEL.ROI_HEADS.NUM_CLASSES", classes)
    return config(*opts)


@pytest.mark.parametrize(
    "text", ["one thing\n\n  two \n", "\ufeff# ours\nbackground\none thing\ntwo\n"]
)
def test_names_come_from_the_file_first_read_as_a_datasets_own(classes_file, dataset, text):
    assert settle_classes(named(dataset), classes_file(text)) == ["one thing", "two"]
    assert settle_classes(named(dataset)) == ["ant", "bee"]
    assert settle_classes(named(dataset, "2")) == ["ant", "bee"]


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


def test_a_file_of_names_must_be_that_of_the_weights(classes_file, trained, dataset):
    def found(text):
        return settle_classes(named(dataset), classes_file(text), weights=trained)

    assert found("bee\nant\n")[0] == "bee"
    for text in ("ant\nbee\n", "bee\nwasp\n", "bee\nant\nwasp\n"):
        with pytest.raises(IONError, match="trained.pth was trained on (an)?other"):
            found(text)
    with pytest.raises(IONError, match="trained.pth names 2 .*NUM_CLASSES is 3.*'bee', 'ant'"):
        settle_classes(named(dataset, "3"), weights=trained)


def test_bad_class_files_are_named(tmp_path, classes_file, dataset):
    with pytest.raises(IONError, match=r"none\.txt cannot be read"):
        settle_classes(named(dataset), str(tmp_path / "none.txt"))
    with pytest.raises(IONError, match=r"c\.txt names no class"):
        settle_classes(named(dataset), classes_file("\n"))
    with pytest.raises(IONError, match=r"names 3 classes, but .*NUM_CLASSES is 2"):
        settle_classes(named(dataset, "2"), classes_file("a\nb\nc\n"))


def test_unknown_number_of_classes_is_an_error():
    with pytest.raises(IONError, match="--classes FILE"):
        settle_classes(named("voc:/no/such/folder:test", "0"))
