"""Selective Search and EdgeBoxes of OpenCV's contrib modules.

A proposer takes an (H, W, 3) uint8 BGR picture and returns (N, 4) float32 corners x0, y0, x1, y1,
right and bottom exclusive, and (N,) float32 scores.
"""

from __future__ import annotations

import functools
import os
from typing import Callable

import cv2
import numpy as np

from ion_d2.data.proposals.proposal_file import rank_scores
from ion_d2.errors import IONError

# What each chooses of Selective Search's color spaces and ways to join regions, in OpenCV's words.
_SEARCHES = {
    "selective-search-fast": "switchToSelectiveSearchFast",
    "selective-search-quality": "switchToSelectiveSearchQuality",
    "selective-search-single": "switchToSingleStrategy",
}
METHODS = (*_SEARCHES, "edge-boxes")
Proposer = Callable[[np.ndarray], "tuple[np.ndarray, np.ndarray]"]


def build_proposer(method: str, max_boxes: int, model_file: str | None = None) -> Proposer:
    """Build a program that proposes boxes.

    Args:
        method: one of ``METHODS``.
        max_boxes: most boxes for a picture that will be used.
        model_file: for "edge-boxes", OpenCV's model of structured edges, ``model.yml`` or
            ``model.yml.gz``.

    Raises:
        IONError: OpenCV's contrib modules or the edge model are missing.
    """
    if not hasattr(cv2, "ximgproc"):
        raise IONError(
            "This OpenCV has no module cv2.ximgproc; replace it by the contrib build: `pip "
            "uninstall -y opencv-python opencv-python-headless && pip install "
            "opencv-contrib-python-headless`."
        )
    if method == "edge-boxes":
        return _edge_boxes(model_file or "", max_boxes)
    return functools.partial(_selective_search, switch=_SEARCHES[method])


def _selective_search(image: np.ndarray, switch: str) -> tuple[np.ndarray, np.ndarray]:
    """Selective Search (Uijlings et al., IJCV 2013).

    "quality" takes more color spaces and strategies than "fast", several times the boxes and the
    time; "single" takes one of each, a fifth of both.
    """
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(image)
    getattr(search, switch)()
    rectangles = np.asarray(search.process()).reshape(-1, 4)
    return _corners(_mixed(rectangles)), rank_scores(len(rectangles))


def _edge_boxes(model_file: str, max_boxes: int) -> Proposer:
    """EdgeBoxes (Zitnick and Dollar, ECCV 2014) on structured edges."""
    if not os.path.isfile(model_file):
        raise IONError(
            f"The edge model {model_file!r} does not exist; give --model with "
            "model.yml.gz of the repository opencv_extra, folder testdata/cv/ximgproc."
        )
    try:
        detector = cv2.ximgproc.createStructuredEdgeDetection(model_file)
    except cv2.error as error:
        raise IONError(
            f"The edge model {model_file} cannot be read ({error.err}); fetch it again."
        ) from error

    def propose(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # The model takes red first.
        edges = detector.detectEdges(np.ascontiguousarray(image[:, :, ::-1], np.float32) / 255)
        orientation = detector.computeOrientation(edges)
        finder = cv2.ximgproc.createEdgeBoxes()
        finder.setMaxBoxes(max_boxes)
        thin = detector.edgesNms(edges, orientation)
        rectangles, scores = finder.getBoundingBoxes(thin, orientation)
        boxes = _corners(np.asarray(rectangles).reshape(-1, 4))
        # OpenCV returns a score even where it returns no box.
        return boxes, np.asarray(scores, dtype=np.float32).reshape(-1)[: len(boxes)]

    return propose


def _mixed(rectangles: np.ndarray) -> np.ndarray:
    """Rectangles (x, y, width, height) of Selective Search in an order that helps a detector.

    OpenCV returns them in an order that depends on all pictures before, the smallest first. Here it
    depends on the picture alone: a fixed random number per box, divided by the fourth root of its
    side, so that boxes of all sizes stand at the front, large ones a little more often.
    """
    rectangles = rectangles[np.lexsort(rectangles.T)]
    chance = np.random.default_rng(0).random(len(rectangles))
    sides = np.sqrt(rectangles[:, 2].astype(np.float64) * rectangles[:, 3])
    return rectangles[np.argsort(chance / sides**0.25, kind="stable")]


def _corners(rectangles: np.ndarray) -> np.ndarray:
    corners = rectangles.astype(np.float32)
    corners[:, 2:] += corners[:, :2]
    return corners
