"""Selective Search and EdgeBoxes of OpenCV's contrib modules."""

from __future__ import annotations

import os
from typing import Any

import cv2
import numpy as np

from ion_d2.data.proposals.proposal_file import rank_scores
from ion_d2.errors import IONError

METHODS = ("selective-search-fast", "selective-search-quality", "edge-boxes")


def require_contrib() -> None:
    """Check that OpenCV was built with its contrib modules.

    Raises:
        IONError: it was not; the message says what to install.
    """
    if not hasattr(cv2, "ximgproc"):
        raise IONError(
            "This OpenCV has no module cv2.ximgproc; replace it by the contrib build: `pip "
            "uninstall -y opencv-python opencv-python-headless && pip install "
            "opencv-contrib-python-headless`."
        )


class SelectiveSearch:
    """Selective Search (Uijlings et al., IJCV 2013), as implemented in OpenCV.

    OpenCV returns the segments in an order that depends on all pictures before, with the smallest
    segments first. Here the order depends on the picture alone: a fixed random number a box,
    divided by the fourth root of its side, so that boxes of all sizes stand at the front, large
    ones a little more often.
    """

    def __init__(self, quality: bool = False) -> None:
        """
        Args:
            quality: more color spaces and strategies, several times the boxes and the time.
        """
        require_contrib()
        self._quality = quality

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Propose boxes for one picture.

        Args:
            image: (H, W, 3) uint8, BGR.

        Returns:
            (N, 4) float32 corners, the right and bottom exclusive, and (N,) scores.
        """
        search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
        search.setBaseImage(image)
        if self._quality:
            search.switchToSelectiveSearchQuality()
        else:
            search.switchToSelectiveSearchFast()
        rectangles = np.asarray(search.process()).reshape(-1, 4)
        return _corners(_mixed(rectangles)), rank_scores(len(rectangles))


class EdgeBoxes:
    """EdgeBoxes (Zitnick and Dollar, ECCV 2014) on structured edges, as implemented in OpenCV."""

    def __init__(self, model_file: str, max_boxes: int) -> None:
        """
        Args:
            model_file: OpenCV's model of structured edges, ``model.yml`` or ``model.yml.gz``.
            max_boxes: most boxes for a picture.

        Raises:
            IONError: it is missing or not such a model.
        """
        require_contrib()
        if not os.path.isfile(model_file):
            raise IONError(
                f"The edge model {model_file!r} does not exist; give --model with "
                "model.yml.gz of the repository opencv_extra, folder testdata/cv/ximgproc."
            )
        try:
            self._edges = cv2.ximgproc.createStructuredEdgeDetection(model_file)
        except cv2.error as error:
            raise IONError(
                f"The edge model {model_file} cannot be read ({error.err}); fetch it again."
            ) from error
        self._max_boxes = max_boxes

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Propose boxes for one picture; see :class:`SelectiveSearch`."""
        # The model takes red first.
        edges = self._edges.detectEdges(np.ascontiguousarray(image[:, :, ::-1], np.float32) / 255)
        orientation = self._edges.computeOrientation(edges)
        thin = self._edges.edgesNms(edges, orientation)
        finder = cv2.ximgproc.createEdgeBoxes()
        finder.setMaxBoxes(self._max_boxes)
        rectangles, scores = finder.getBoundingBoxes(thin, orientation)
        boxes = _corners(np.asarray(rectangles).reshape(-1, 4))
        # OpenCV returns a score even where it returns no box.
        return boxes, np.asarray(scores, dtype=np.float32).reshape(-1)[: len(boxes)]


def build_proposer(method: str, max_boxes: int, model_file: str | None = None) -> Any:
    """Build the program that proposes boxes.

    Args:
        method: one of ``METHODS``.
        max_boxes: most boxes for a picture that will be used.
        model_file: the edge model, for "edge-boxes".

    Returns:
        A function from an (H, W, 3) uint8 BGR picture to (N, 4) boxes and (N,) scores.

    Raises:
        IONError: OpenCV's contrib modules or the edge model are missing.
    """
    if method == "edge-boxes":
        return EdgeBoxes(model_file or "", max_boxes)
    return SelectiveSearch(quality=method == "selective-search-quality")


def _mixed(rectangles: np.ndarray) -> np.ndarray:
    """The rectangles (x, y, width, height) in the order told at :class:`SelectiveSearch`."""
    rectangles = rectangles[np.lexsort(rectangles.T)]
    chance = np.random.default_rng(0).random(len(rectangles))
    sides = np.sqrt(rectangles[:, 2].astype(np.float64) * rectangles[:, 3])
    return rectangles[np.argsort(chance / sides**0.25, kind="stable")]


def _corners(rectangles: np.ndarray) -> np.ndarray:
    corners = rectangles.astype(np.float32)
    corners[:, 2:] += corners[:, :2]
    return corners
