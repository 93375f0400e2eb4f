"""Writing a detector as TorchScript or ONNX."""

from __future__ import annotations

import copy
import importlib.util
import inspect
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import nn

from ..errors import IONError
from ..files import write_result
from ..modeling.context.rnn import SpatialRNN
from .adapter import DetectorAdapter, tracing

# What an exported detector returns, in this order.
_OUTPUTS = ["boxes", "scores", "classes"]


def describe(cfg: CfgNode, class_names: Sequence[str]) -> dict[str, Any]:
    """What a program must know to use the exported detector of a config, for JSON.

    Returns:
        "classes": names by id; "input": how a picture becomes the one input (see docs/EXPORT.md);
        "outputs": names in their order; "score_threshold": detections score more than this;
        "max_detections"; "device": on which a TorchScript file runs.
    """
    return {
        "classes": list(class_names),
        "input": {
            "name": "image",
            "shape": [len(cfg.MODEL.PIXEL_MEAN), "height", "width"],
            "dtype": "uint8",
            "channels": cfg.INPUT.FORMAT,
            "shortest_side": cfg.INPUT.MIN_SIZE_TEST,
            "longest_side": cfg.INPUT.MAX_SIZE_TEST,
        },
        "outputs": _OUTPUTS,
        "score_threshold": cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST,
        "max_detections": cfg.TEST.DETECTIONS_PER_IMAGE,
        "device": cfg.MODEL.DEVICE,
    }


def export_detector(model: nn.Module, path: str | os.PathLike[str], facts: dict[str, Any]) -> None:
    """Write a detector, and beside it, as PATH.json, what a program must know to use it.

    Args:
        model: the detector with its weights. A TorchScript file runs on the model's device; for
            ONNX the model must be on the CPU.
        path: file to write, ``.ts`` or ``.onnx``; the result takes images of any size.
        facts: see :func:`describe`.

    Raises:
        IONError: another suffix, a model that cannot be exported, or a file that cannot be written.
    """
    formats = {".ts": _torchscript, ".onnx": _onnx}
    suffix = Path(path).suffix
    if suffix not in formats:
        raise IONError(f"{path} should end in {' or '.join(formats)}, which tells the format.")
    content = formats[suffix](DetectorAdapter(model))
    text = json.dumps(facts, indent=1) + "\n"
    advice = "choose another place for it"
    write_result(str(path), lambda file: file.write(content), advice)
    write_result(f"{path}.json", lambda file: file.write(text.encode()), advice)


def _torchscript(adapter: DetectorAdapter) -> bytes:
    # The copy needs no gradients, so that users need no no_grad; the model may go on training.
    frozen, buffer = copy.deepcopy(adapter).requires_grad_(False), io.BytesIO()
    with tracing():
        # The check would run the model again on the same image.
        trace = torch.jit.trace(frozen, (frozen.example(),), check_trace=False)
    torch.jit.save(trace, buffer)
    return buffer.getvalue()


def _onnx(adapter: DetectorAdapter) -> bytes:
    """Export a trace: torch.export cannot follow the counts that depend on the image."""
    if importlib.util.find_spec("onnx") is None:
        raise IONError(
            "Writing an .onnx file needs the package onnx, which is not installed; run `pip "
            "install onnx`."
        )
    if any(getattr(module, "transition", "") == "max" for module in adapter.modules()):
        raise IONError(
            "MODEL.CONTEXT.TRANSITION 'max' has no operator in ONNX; export this model to a .ts "
            "file (TorchScript)."
        )
    if sum(isinstance(module, SpatialRNN) for module in adapter.modules()) > 1:
        raise IONError(
            "MODEL.CONTEXT.NAME 'RNN' of several stacks keeps the size of one picture in ONNX; "
            "export this model to a .ts file (TorchScript)."
        )
    buffer = io.BytesIO()
    options: dict[str, Any] = {"f": buffer}  # newer releases' annotations leave buffers out
    if "dynamo" in inspect.signature(torch.onnx.export).parameters:
        options["dynamo"] = False
    with tracing():
        torch.onnx.export(
            adapter,
            (adapter.example(),),
            opset_version=17,  # the first with all that a detector needs is 16
            input_names=["image"],
            output_names=_OUTPUTS,
            dynamic_axes={"image": {1: "height", 2: "width"}, **dict.fromkeys(_OUTPUTS, {0: "M"})},
            **options,
        )
    return buffer.getvalue()
