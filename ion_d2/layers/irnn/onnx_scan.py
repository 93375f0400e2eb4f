"""One sweep in ONNX, as a Scan node (needs onnxscript).

onnxscript compiles these functions from their source: what looks like Python here is ONNX.
"""

from collections.abc import Sequence

from onnxscript import FLOAT, graph, script
from onnxscript import opset18 as op
from onnxscript.values import Opset

DOMAIN = Opset("ion_d2", 1)


@script(DOMAIN)
def scan_diagonal(start: FLOAT, lines: FLOAT, factor: FLOAT, backwards: Sequence[int]) -> FLOAT:
    """Sweep with one factor a channel.

    Args:
        start: [N, L, C], zeros.
        lines: [steps, N, L, C].
        factor: [C], or [1] for the identity.
        backwards: [1] to begin at the last step, else [0].

    Returns:
        The states, [steps, N, L, C].
    """

    @graph()
    def step(state, line):
        following = op.Relu(op.Add(op.Mul(state, factor), line))
        out = op.Identity(following)
        return following, out

    _, states = op.Scan(
        start,
        lines,
        body=step,
        num_scan_inputs=1,
        scan_input_directions=backwards,
        scan_output_directions=backwards,
    )
    return states


@script(DOMAIN)
def scan_full(start: FLOAT, lines: FLOAT, transposed: FLOAT, backwards: Sequence[int]) -> FLOAT:
    """Sweep with a matrix, given transposed, [C, C]; the rest as in :func:`scan_diagonal`."""

    @graph()
    def step(state, line):
        following = op.Relu(op.Add(op.MatMul(state, transposed), line))
        out = op.Identity(following)
        return following, out

    _, states = op.Scan(
        start,
        lines,
        body=step,
        num_scan_inputs=1,
        scan_input_directions=backwards,
        scan_output_directions=backwards,
    )
    return states
