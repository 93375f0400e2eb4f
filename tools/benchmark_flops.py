"""The arithmetic of a detection: multiply-adds, as fvcore and Detectron2's model zoo count them.

To fvcore's products and convolutions this adds what it does not know: the spatial IRNN, one
multiply-add for each state and, with a full matrix, for each of its entries; ROIAlign, one for each
cell that a bin reads; torch's recurrent cells. Additions, comparisons and norms are not counted.
"""

from __future__ import annotations

import math
from typing import Any
from unittest import mock

import torch
from detectron2.layers import ROIAlign
from detectron2.utils.analysis import FlopCountAnalysis
from fvcore.nn.jit_handles import get_shape
from torch import Tensor, nn
from torchvision import ops

from ion_d2.layers import roi_align
from ion_d2.layers.irnn import op


def count_flops(net: nn.Module, inputs: list[dict]) -> dict[str, float]:
    """Count one inference.

    Returns:
        Multiply-adds of each module by name, those inside included; "" is the whole model.
    """
    images = [{k: v for k, v in x.items() if k in ("image", "proposals")} for x in inputs]
    calls: list[tuple] = []  # what ROIAligns were given, in the order of their calls
    aligns = [m for m in net.modules() if isinstance(m, (ROIAlign, ops.RoIAlign))]
    hooks = [m.register_forward_hook(lambda *call: calls.append(call[:2])) for m in aligns]
    # A trace holds the recurrence as loops, which fvcore does not look into: keep it one node.
    whole = mock.patch.object(op, "spatial_irnn_portable", _keep_whole)
    with whole, torch.no_grad():
        count = FlopCountAnalysis(net.eval(), images)
        count.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        count.tracer_warnings("none")
        pooled = {"torchvision::roi_align": lambda _, outputs: _entries(*calls.pop(0), outputs)}
        found = count.set_op_handle(**_HANDLES, **pooled).by_module()
    for hook in hooks:
        hook.remove()
    return {name.removeprefix("model").lstrip("."): total for name, total in found.items()}


def _keep_whole(x: Tensor, weight: Any, directions: list[int], sizes: Any) -> Tensor:
    return op.spatial_irnn_op(x, weight, directions, sizes, "torch")


def _entries(layer: nn.Module, inputs: tuple[Tensor, Tensor], outputs: list) -> float:
    x, rois = inputs
    matrices = roi_align._matrices(rois.cpu(), x.shape, layer)
    return sum(len(it.columns) for _, it in matrices) * get_shape(outputs[0])[1]


def _recurrence(inputs: list, outputs: list) -> float:
    weight, states = get_shape(inputs[1]), get_shape(outputs[0])
    each = weight[2] if weight is not None and len(weight) == 3 else 1
    return math.prod(states) * each


def _cells(inputs: list, outputs: list) -> float:
    lines, steps, _ = get_shape(inputs[0])
    matrices = [get_shape(value) for value in inputs[2].node().inputs()]
    return lines * steps * sum(math.prod(it) for it in matrices if len(it) == 2)


_HANDLES = {
    "ion_d2::spatial_irnn": _recurrence,
    # Where PyTorch cannot register the operator.
    "prim::PythonOp.SpatialIRNNFunction": _recurrence,
    **dict.fromkeys(("aten::rnn_tanh", "aten::gru", "aten::lstm"), _cells),
}
