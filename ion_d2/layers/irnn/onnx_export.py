"""The spatial IRNN in ONNX: one Scan node a direction, for maps of any size.

PyTorch's exporter asks for the translation of an operator that it does not know::

    torch.onnx.export(model, inputs, "model.onnx", dynamo=True,
                      custom_translation_table=onnx_translation_table())
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from .arguments import BACKWARDS, DIRECTIONS
from .op import CAN_REGISTER

# From [N, C, H, W] to [steps, N, cells of a line, C], and back.
_TO_STEPS = {"right": (3, 0, 2, 1), "left": (3, 0, 2, 1), "down": (2, 0, 3, 1), "up": (2, 0, 3, 1)}
_FROM_STEPS = {
    "right": (1, 3, 2, 0),
    "left": (1, 3, 2, 0),
    "down": (1, 3, 0, 2),
    "up": (1, 3, 0, 2),
}


def onnx_translation_table() -> dict[Any, Callable[..., Any]]:
    """What ``torch.onnx.export(..., custom_translation_table=...)`` needs for the spatial IRNN.

    Returns:
        The operator and the function that writes it in ONNX (opset 18).

    Raises:
        ModuleNotFoundError: onnxscript, which PyTorch's exporter needs as well, is not installed.
        RuntimeError: this PyTorch cannot register operators, so it cannot export them either.
    """
    import onnxscript  # noqa: F401

    if not CAN_REGISTER:
        raise RuntimeError(
            f"PyTorch {torch.__version__} registers no operators from Python; export with "
            "dynamo=False, which needs no translation."
        )
    return {torch.ops.ion_d2.spatial_irnn.default: _translate}


def _translate(x: Any, weight: Any, directions: Sequence[int], sizes: Any, backend: str) -> Any:
    """Write the operator in ONNX; the arguments are those of the registered one."""
    from onnxscript import FLOAT
    from onnxscript import opset18 as op

    source = op.Cast(x, to=FLOAT.dtype)
    zero = op.Constant(value_float=0.0)
    inside = None if sizes is None else _inside(x, sizes)
    if inside is not None:
        source = op.Where(inside, source, zero)
    swept = [_sweep(source, weight, d, DIRECTIONS[i]) for d, i in enumerate(directions)]
    out = op.Concat(*swept, axis=1)
    if inside is not None:
        out = op.Where(inside, out, zero)
    return op.CastLike(out, x)


def _sweep(source: Any, weight: Any, position: int, direction: str) -> Any:
    """The states of one direction, [N, C, H, W]."""
    from onnxscript import FLOAT
    from onnxscript import opset18 as op

    from .onnx_scan import scan_diagonal, scan_full

    lines = op.Transpose(source, perm=_TO_STEPS[direction])
    one_line = op.Slice(op.Shape(lines), op.Constant(value_ints=[1]), op.Constant(value_ints=[4]))
    start = op.Expand(op.Constant(value_float=0.0), one_line)
    backwards = [int(direction in BACKWARDS)]
    if weight is None:
        one = op.Constant(value_floats=[1.0])
        states = scan_diagonal(start, lines, one, backwards=backwards)
    else:
        own = op.Gather(weight, op.Constant(value_int=position), axis=0)
        own = op.Cast(own, to=FLOAT.dtype)
        if len(weight.shape) == 2:
            states = scan_diagonal(start, lines, own, backwards=backwards)
        else:
            transposed = op.Transpose(own, perm=[1, 0])
            states = scan_full(start, lines, transposed, backwards=backwards)
    return op.Transpose(states, perm=_FROM_STEPS[direction])


def _inside(x: Any, sizes: Any) -> Any:
    """The mask of :func:`ion_d2.layers.irnn.arguments.valid_mask`, [N, 1, H, W]."""
    from onnxscript import INT64
    from onnxscript import opset18 as op

    shape = op.Shape(x)
    zero, one = op.Constant(value_int=0), op.Constant(value_int=1)
    sizes = op.Cast(sizes, to=INT64.dtype)
    masks = []
    for dim in (2, 3):
        extent = op.Gather(shape, op.Constant(value_int=dim), axis=0)
        cells = op.Range(zero, extent, one)
        if dim == 2:
            cells = op.Unsqueeze(cells, op.Constant(value_ints=[1]))
        limit = op.Gather(sizes, op.Constant(value_int=dim - 2), axis=1)
        limit = op.Reshape(limit, op.Constant(value_ints=[-1, 1, 1, 1]))
        masks.append(op.Less(cells, limit))
    return op.And(*masks)
