"""Running exported detectors: is one what it came from, and how fast is it?"""

from __future__ import annotations

import importlib
import os
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torchvision  # noqa: F401  (has the operators that a TorchScript file calls)
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ..errors import IONError

# (C, H, W) uint8 to boxes (M, 4), scores (M,) and classes (M,).
Detect = Callable[[Tensor], tuple[Tensor, ...]]

# How far a coordinate, in pixels, and a score may be from the original's.
_BOX_TOLERANCE = 0.5
_SCORE_TOLERANCE = 1e-3


def load_exported(path: str | os.PathLike[str]) -> Detect:
    """Load a ``.ts`` or ``.onnx`` file that :func:`ion_d2.export.export_detector` wrote.

    The result maps an image (C, H, W) uint8 to boxes (M, 4), scores (M,) and classes (M,). ONNX
    Runtime uses as many threads as PyTorch.

    Raises:
        IONError: the file is missing or damaged, or ONNX Runtime is not installed.
    """
    load = _load_onnx if Path(path).suffix == ".onnx" else torch.jit.load
    try:
        return load(str(path))
    except IONError:
        raise
    # The loaders raise errors of many classes over a missing or damaged file.
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise IONError(f"{path} cannot be loaded ({reason}); export it again.") from error


def _load_onnx(path: str) -> Detect:
    try:
        runtime = importlib.import_module("onnxruntime")
    except ModuleNotFoundError as error:
        raise IONError(
            "Running an .onnx file needs ONNX Runtime, which is not installed; run `pip install "
            "onnxruntime`."
        ) from error
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    return lambda image: tuple(map(torch.from_numpy, session.run(None, {"image": image.numpy()})))


@dataclass
class Comparison:
    """What :func:`compare` found."""

    detections: int = 0  # of the original
    missing: int = 0  # of these, without a counterpart within the tolerances
    extra: int = 0  # of the exported model, without a counterpart
    box_error: float = 0.0  # largest difference of a coordinate among counterparts, pixels
    score_error: float = 0.0  # largest difference of a score among counterparts
    original_seconds: list[float] = field(default_factory=list)  # of each image
    exported_seconds: list[float] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        """Whether every detection has a counterpart."""
        return self.missing == self.extra == 0

    @property
    def time_ratio(self) -> float:
        """Time of the exported model, the original's being 1: the median over the images."""
        pairs = zip(self.exported_seconds, self.original_seconds)
        return statistics.median(exported / original for exported, original in pairs)


@torch.no_grad()
def compare(original: Detect, exported: Detect, images: Iterable[Tensor]) -> Comparison:
    """Run the model in Python and the exported one on the same images (C, H, W) uint8 in turns.

    The first image is run twice more before, since first runs are slow.
    """
    result = Comparison()
    for index, image in enumerate(images):
        for _ in range(2 if index == 0 else 0):
            original(image), exported(image)
        expected = _timed(original, image, result.original_seconds)
        found = _timed(exported, image, result.exported_seconds)
        _match(result, expected, found)
    return result


def _timed(detect: Detect, image: Tensor, seconds: list[float]) -> list[Tensor]:
    start = time.perf_counter()
    found = [part.cpu() for part in detect(image)]  # a GPU's results are there once copied
    seconds.append(time.perf_counter() - start)
    return found


def _match(result: Comparison, expected: list[Tensor], found: list[Tensor]) -> None:
    """Pair the detections of both models one to one, and note how far apart they are."""
    boxes = torch.cdist(expected[0], found[0], p=float("inf"))
    scores = (expected[1][:, None] - found[1][None, :]).abs()
    alike = (boxes <= _BOX_TOLERANCE) & (scores <= _SCORE_TOLERANCE)
    alike &= expected[2][:, None] == found[2][None, :]
    # Pairs within the tolerances, the nearest; others do not count.
    distances = torch.where(alike, boxes, torch.tensor(1e6))
    pairs = [(i, j) for i, j in zip(*linear_sum_assignment(distances.numpy())) if alike[i, j]]
    result.detections += len(expected[0])
    result.missing += len(expected[0]) - len(pairs)
    result.extra += len(found[0]) - len(pairs)
    for i, j in pairs:
        result.box_error = max(result.box_error, float(boxes[i, j]))
        result.score_error = max(result.score_error, float(scores[i, j]))
