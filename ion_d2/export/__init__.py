"""Trained detectors as files that run without this project: TorchScript and ONNX."""

from .adapter import DetectorAdapter
from .runners import Comparison, compare, load_exported
from .writers import describe, export_detector

__all__ = [
    "Comparison",
    "DetectorAdapter",
    "compare",
    "describe",
    "export_detector",
    "load_exported",
]
