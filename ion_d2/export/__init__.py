"""Trained detectors as files that run without this project: TorchScript and ONNX."""

from .adapter import DetectorAdapter, check_exportable
from .compare import Comparison, compare
from .description import describe
from .runners import load_exported
from .writers import FORMATS, export_detector

__all__ = [
    "FORMATS",
    "Comparison",
    "DetectorAdapter",
    "check_exportable",
    "compare",
    "describe",
    "export_detector",
    "load_exported",
]
