"""What the tests of the scenes measure with: pictures as a model gets them, classifiers."""

from __future__ import annotations

import io
import math

import numpy as np
from PIL import Image

OUTSIDE = ("outside", "outside-far")


def stored(image: np.ndarray) -> np.ndarray:
    """The picture as it is read back from disk."""
    data = io.BytesIO()
    Image.fromarray(image).save(data, "JPEG", quality=95, subsampling=0)
    return np.asarray(Image.open(data))


def resized(image: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((side, side), Image.BILINEAR))


def held_out_accuracy(features: np.ndarray, labels: np.ndarray, ridge: float = 1.0) -> float:
    """Train ridge regression on the first 60 %, return its accuracy on the rest."""
    cut = int(0.6 * len(labels))
    x = (features - features[:cut].mean(0)) / (features[:cut].std(0) + 1e-6)
    x = np.hstack([x, np.ones((len(x), 1))])
    a, b = x[:cut], 2.0 * labels[:cut] - 1
    weights = np.linalg.solve(a.T @ a + ridge * np.eye(a.shape[1]), a.T @ b)
    return float((((x[cut:] @ weights) > 0) == labels[cut:]).mean())


def at_chance(accuracy: float, total: int) -> bool:
    """Within 3.3 standard deviations of a fair coin over the held-out 40 %."""
    return abs(accuracy - 0.5) < 3.3 * 0.5 / math.sqrt(0.4 * total)
