"""OpenCV's generators, where its contrib modules are installed."""

import cv2
import numpy as np
import pytest

from ion_d2.data.proposals import opencv
from ion_d2.errors import IONError

needs_contrib = pytest.mark.skipif(
    not hasattr(cv2, "ximgproc"), reason="needs opencv-contrib-python-headless"
)


def squares():
    """Two plain rectangles on grey, and where they are."""
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
@pytest.mark.parametrize("method", opencv.METHODS[:2])
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


class Edges:
    """In place of the learned edge model: the gradient's length."""

    def detectEdges(self, image):
        assert image.dtype == np.float32 and image.max() <= 1
        self.first_channel = image[..., 0].copy()
        grey = image.mean(axis=2)
        dx, dy = (cv2.Sobel(grey, cv2.CV_32F, *order) for order in ((1, 0), (0, 1)))
        return np.minimum(np.hypot(dx, dy), 1)

    def computeOrientation(self, edges):
        smooth = cv2.GaussianBlur(edges, (0, 0), 2)
        dx, dy = (cv2.Sobel(smooth, cv2.CV_32F, *order) for order in ((1, 0), (0, 1)))
        return np.mod(np.arctan2(dy, dx), np.pi)

    def edgesNms(self, edges, orientation):
        return edges


@needs_contrib
def test_edge_boxes_on_given_edges(monkeypatch, tmp_path):
    image, expected = squares()
    edges = Edges()
    monkeypatch.setattr(cv2.ximgproc, "createStructuredEdgeDetection", lambda path: edges)
    (tmp_path / "model.yml").touch()
    boxes, scores = opencv.build_proposer("edge-boxes", 50, str(tmp_path / "model.yml"))(image)
    assert 2 <= len(boxes) == len(scores) <= 50 and (np.diff(scores) <= 0).all()
    assert edges.first_channel[60, 80] == 1 and edges.first_channel[20, 30] == 0  # red first
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= [120, 90]).all()
    for box in expected:
        assert np.abs(boxes - box).max(axis=1).min() <= 5


@needs_contrib
def test_edge_boxes_without_its_model(tmp_path):
    with pytest.raises(IONError, match="model ''.*give --model.*opencv_extra"):
        opencv.build_proposer("edge-boxes", 50)
    (tmp_path / "model.yml").write_text("%YAML:1.0\n---\n{")
    with pytest.raises(IONError, match="model.yml cannot be read"):
        opencv.build_proposer("edge-boxes", 50, str(tmp_path / "model.yml"))
