"""What the Triton back-end must do on a GPU alone. test_irnn_triton.py runs this file as well."""

import pytest
import torch
from irnn_cases import KINDS
from triton_helpers import (
    DEVICE,
    assert_close,
    check,
    make,
    on_gpu,
    poison_new_tensors,  # noqa: F401 (a fixture)
)

from ion_d2.layers import DIRECTIONS, spatial_irnn_reference
from ion_d2.layers.irnn import torch_backend, triton_backend


@on_gpu
@pytest.mark.parametrize("kind", ["diagonal", "full"])
def test_two_runs_give_the_same_bits(kind):
    x, weight, grad = make((2, 32, 38, 63), kind)
    first, second = check(x, weight, grad), check(x, weight, grad)
    assert all(torch.equal(a, b) for a, b in zip(first, second))


@on_gpu
@pytest.mark.parametrize("kind", KINDS)
def test_cuda_graph_replays_on_new_values(kind):
    x, weight, grad = make((2, 32, 38, 63), kind)
    sizes = torch.tensor([[38, 63], [20, 30]], device=DEVICE)

    def run():
        output = triton_backend.forward(x, weight, DIRECTIONS, sizes)
        return output, *triton_backend.backward(grad, output, weight, DIRECTIONS, sizes)

    run()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run()
    x.normal_()
    sizes.copy_(torch.tensor([[1, 2], [38, 63]]))
    graph.replay()
    for got, want in zip(captured, run()):
        assert got is want is None or torch.equal(got, want)


@on_gpu
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_real_sizes(dtype, layout, kind):
    """With millions of states, some are so near 0 that rounding decides what the ReLU lets through.

    The gradient is therefore compared with that of the states as they came out, in float64, which
    goes back through the same ReLUs.
    """
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    for shape in [(2, 512, 38, 63), (1, 64, 256, 256), (1, 256, 100, 152)]:
        x, weight, grad = make(shape, kind, dtype=dtype, layout=layout)
        output = triton_backend.forward(x, weight, DIRECTIONS, None)
        wide = None if weight is None else weight.double()
        assert_close(output, spatial_irnn_reference(x.double(), wide), tolerance)
        found = triton_backend.backward(grad, output, weight, DIRECTIONS, None)
        exact = torch_backend.backward(grad.double(), output.double(), wide, DIRECTIONS, None)
        for got, want in zip(found, exact):
            assert (got is None) == (want is None)
            if got is not None:
                assert_close(got, want, tolerance)


@on_gpu
def test_more_cells_than_32_bits_count():
    if torch.cuda.mem_get_info()[0] < 24 * 2**30:
        pytest.skip("needs 24 GiB of free GPU memory")
    x = torch.zeros(1, 3, 32768, 32768, dtype=torch.bfloat16, device=DEVICE)
    x[0, 2, 5] = 1
    output = triton_backend.forward(x, None, ("down",), None)
    assert (output[0, 2, 5:] == 1).all() and not output[0, :2].any()
