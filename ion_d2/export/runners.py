"""Running exported detectors."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision  # noqa: F401  (has the operators that a TorchScript file calls)
from torch import Tensor

from ..errors import IONError

# (C, H, W) uint8 to boxes (M, 4), scores (M,) and classes (M,).
Detect = Callable[[Tensor], tuple[Tensor, ...]]


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
