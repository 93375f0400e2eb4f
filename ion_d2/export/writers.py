"""Writing a detector as TorchScript or ONNX."""

from __future__ import annotations

import inspect
import io
import json
import os
from pathlib import Path
from typing import Any, Callable

import torch
from torch import nn

from ..errors import IONError
from ..files import replace_file
from .adapter import DetectorAdapter, tracing
from .description import OUTPUTS

# The first operator set with all that a detector needs is 16.
_OPSET = 17


def export_detector(model: nn.Module, path: str | os.PathLike[str], facts: dict[str, Any]) -> None:
    """Write a detector, and beside it, as PATH.json, what a program must know to use it.

    Args:
        model: the detector with its weights. A TorchScript file runs on the model's device; for
            ONNX the model must be on the CPU.
        path: file to write, ``.ts`` or ``.onnx``; images of any size can be given to the result.
        facts: see :func:`ion_d2.export.describe`.

    Raises:
        IONError: another suffix, a model that cannot be exported, or a file that cannot be written.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise IONError(f"{path} should end in {' or '.join(FORMATS)}, which tells the format.")
    content = FORMATS[path.suffix](DetectorAdapter(model))
    text = json.dumps(facts, indent=1) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(str(path), lambda file: file.write(content))
        replace_file(f"{path}.json", lambda file: file.write(text.encode()))
    except OSError as error:
        raise IONError(
            f"{path} cannot be written ({error.strerror}); choose another place for it."
        ) from error


def _torchscript(adapter: DetectorAdapter) -> bytes:
    buffer = io.BytesIO()
    with tracing():
        # The check would run the model again on the same image.
        trace = torch.jit.trace(adapter, (adapter.example(),), check_trace=False)
    torch.jit.save(trace, buffer)
    # A copy, which users need not run under no_grad; the model may go on training.
    buffer.seek(0)
    copy = torch.jit.load(buffer)
    for parameter in copy.parameters():
        parameter.requires_grad_(False)
    buffer = io.BytesIO()
    torch.jit.save(copy, buffer)
    return buffer.getvalue()


def _onnx(adapter: DetectorAdapter) -> bytes:
    """Export a trace: torch.export cannot follow the counts that depend on the image."""
    if any(getattr(module, "transition", "") == "max" for module in adapter.modules()):
        raise IONError(
            "MODEL.CONTEXT.TRANSITION 'max' has no operator in ONNX; export this model to a .ts "
            "file (TorchScript)."
        )
    buffer = io.BytesIO()
    # The annotations of newer releases leave buffers out.
    options: dict[str, Any] = {"f": buffer}
    if "dynamo" in inspect.signature(torch.onnx.export).parameters:
        options["dynamo"] = False
    with tracing():
        torch.onnx.export(
            adapter,
            (adapter.example(),),
            opset_version=_OPSET,
            input_names=["image"],
            output_names=list(OUTPUTS),
            dynamic_axes={
                "image": {1: "height", 2: "width"},
                **{name: {0: "M"} for name in OUTPUTS},
            },
            **options,
        )
    return buffer.getvalue()


# What writes each format, by the file's suffix.
FORMATS: dict[str, Callable[[DetectorAdapter], bytes]] = {".ts": _torchscript, ".onnx": _onnx}
