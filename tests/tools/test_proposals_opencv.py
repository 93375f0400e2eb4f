"""OpenCV's generators, where its contrib modules are installed."""

import cv2
import numpy as np
import proposals_opencv as opencv
import pytest

from ion_d2.errors import IONError

needs_contrib = pytest.mark.skipif(
    not hasattr(cv2, "ximgproc"), reason="needs opencv-contrib-python-headless"
)


def squares():
    """Two plain rectangles on gray, and where they are."""
    image = np.full((90, 120, 3), 128, np.uint8)
    image[10:40, 20:60] = (255, 0, 0)
    image[50:80, 70:110] = (0, 0, 255)
    return image, [[20, 10, 60, 40], [70, 50, 110, 80]]


def test_a_plain_opencv_is_told(monkeypatch):
    monkeypatch.delattr(cv2, "ximgproc", raising=False)
    with pytest.raises(IONError, match="pip install opencv-contrib-python-headless"):
        opencv.build_proposer("selective-search-fast", 10)


def test_rectangles_are_mixed_the_same_in_any_order():
    rng = np.random.default_rng(1)
    rectangles = np.unique(rng.integers(1, 50, (500, 4)), axis=0)
    mixed = opencv._mixed(rectangles)
    np.testing.assert_array_equal(mixed, opencv._mixed(rng.permutation(rectangles)))
    np.testing.assert_array_equal(np.unique(mixed, axis=0), rectangles)
    area = mixed[:, 2] * mixed[:, 3]
    assert area[:100].mean() > area.mean() > area[-100:].mean()
    assert area[:100].min() < np.median(area)  # small ones are at the front too


@needs_contrib
@pytest.mark.parametrize("method", opencv.METHODS[:3])
def test_selective_search_finds_plain_rectangles(method):
    image, expected = squares()
    propose = opencv.build_proposer(method, 2000)
    boxes, scores = propose(image)
    assert boxes.dtype == np.float32 and (np.diff(scores) < 0).all()
    assert len(scores) == len(boxes) > 2
    for box in expected:
        assert np.abs(boxes - box).max(axis=1).min() <= 2
    again, _ = propose(image)
    np.testing.assert_array_equal(boxes, again)


# A forest of one tree with one split: where the gradient in the middle of a 32 x 32 patch is large
# (channel 3 of the features, which have half the resolution), there is an edge.
MODEL = """%YAML:1.0
---
options:
   stride: 2
   shrinkNumber: 2
   patchSize: 32
   patchInnerSize: 16
   numberOfGradientOrientations: 4
   gradientSmoothingRadius: 0
   regFeatureSmoothingRadius: 2
   ssFeatureSmoothingRadius: 8
   gradientNormalizationRadius: 4
   selfsimilarityGridSize: 5
   numberOfTrees: 1
   numberOfTreesToEvaluate: 1
childs: [ [ 2, 0, 0 ] ]
featureIds: [ [ 904, 0, 0 ] ]
thresholds: [ [ 0.3, 0., 0. ] ]
edgeBoundaries: [ [ 0, 0, 0, 64 ] ]
"""
# The four pixels in the middle, often enough to be a strong edge.
MODEL += f"edgeBins: [ [ {', '.join(['119, 120, 135, 136'] * 16)} ] ]\n"


@needs_contrib
def test_edge_boxes_on_the_edges_of_a_small_model(tmp_path):
    image, expected = squares()
    (tmp_path / "model.yml").write_text(MODEL)
    propose = opencv.build_proposer("edge-boxes", 50, str(tmp_path / "model.yml"))
    boxes, scores = propose(image)
    assert 2 <= len(boxes) == len(scores) <= 50 and (np.diff(scores) <= 0).all()
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= [120, 90]).all()
    for box in expected:  # the two best boxes are the two rectangles
        assert np.abs(boxes[:2] - box).max(axis=1).min() <= 8
    boxes, scores = propose(np.full((90, 120, 3), 128, np.uint8))
    assert (boxes.shape, scores.shape) == ((0, 4), (0,))


@needs_contrib
def test_edge_boxes_without_its_model(tmp_path):
    with pytest.raises(IONError, match="model ''.*give --model.*opencv_extra"):
        opencv.build_proposer("edge-boxes", 50)
    (tmp_path / "model.yml").write_text("%YAML:1.0\n---\n{")
    with pytest.raises(IONError, match="model.yml cannot be read"):
        opencv.build_proposer("edge-boxes", 50, str(tmp_path / "model.yml"))
