"""The arrays that a predictor takes, and what it says of the others."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.data.detection_utils import read_image
from PIL import Image

from ion_d2.engine.picture_array import as_picture
from ion_d2.engine.predictor import Prediction
from ion_d2.errors import IONError

BGR = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
GRAY = BGR[:, :, 0]


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
        (None, "None"),
        ("a.jpg", "'a.jpg'"),
        (Image.fromarray(BGR), "Image"),
        (torch.from_numpy(BGR), "Tensor"),
        (BGR.tolist(), "list"),
        ([BGR, BGR], "list"),
        (BGR / 255, "float64"),
        (BGR.astype(np.float32), "float32"),
        (BGR.astype(np.uint16), "uint16"),
        (BGR.astype(np.int64), "int64"),
        (BGR > 9, "bool"),
        (BGR.astype(object), "object"),
        (BGR.transpose(2, 0, 1), "(3, 5, 7)"),
        (BGR[None], "(1, 5, 7, 3)"),
        (BGR[:0], "(0, 7, 3)"),
        (BGR[:, :0], "(5, 0, 3)"),
        (BGR[:, :, :2], "(5, 7, 2)"),
        (BGR[0, 0], "(3,)"),
    ],
)
def test_anything_else_is_told(image, word):
    with pytest.raises(IONError) as error:
        as_picture(image, "BGR")
    assert word in str(error.value) and "\n" not in str(error.value)


def test_a_prediction_gives_the_fields_of_its_instances():
    class Found:
        scores = (0.5,)

    prediction = Prediction(instances=Found())
    assert list(prediction) == ["instances"] and prediction.scores == (0.5,)
    assert not hasattr(prediction, "nothing") and not hasattr(Prediction(), "scores")
