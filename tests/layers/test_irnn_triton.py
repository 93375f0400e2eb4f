"""The Triton back-end of the spatial IRNN: interpreted on the CPU, and on a GPU if there is one."""

import ast
import functools
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
import torch

from ion_d2.layers.irnn import triton_backend, unavailable_backends

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parent
FILES = [FOLDER / f"irnn_triton_{kind}.py" for kind in ("cases", "gpu_cases")]
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
PLACES = {
    "the interpreter": {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""},
    # cuBLAS, which sums up a full transition's gradient, is deterministic in this workspace.
    "a GPU": {"TRITON_INTERPRET": "0", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"},
}


def cases():
    """The files and names of the test functions."""
    trees = [(path, ast.parse(path.read_text(encoding="utf-8"))) for path in FILES]
    functions = [(path, node.name) for path, tree in trees for node in tree.body
                 if isinstance(node, ast.FunctionDef)]  # fmt: skip
    return [f"{path.name}::{name}" for path, name in functions if name.startswith("test_")]


@pytest.fixture(scope="module")
def ended(request):
    """How the chosen cases ended in a place, which is a process of its own for all of them."""

    @functools.cache
    def run(place):
        params = [
            item.callspec.params
            for item in request.session.items
            if getattr(item, "originalname", "") == "test_case"
        ]
        chosen = {FOLDER / it["case"]: None for it in params if it["place"] == place}
        report = request.getfixturevalue("tmp_path_factory").mktemp("triton") / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        done = subprocess.run(
            [*command, f"--junitxml={report}", *chosen],
            env={**os.environ, **PLACES[place]}, capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        assert report.is_file(), done.stdout + done.stderr
        found = ElementTree.parse(report).getroot().iter("testcase")
        return [(f"{it.get('name')}".partition("[")[0], it) for it in found]

    return run


@needs_triton
@pytest.mark.parametrize("case", cases())
@pytest.mark.parametrize("place", ["the interpreter", pytest.param("a GPU", marks=needs_gpu)])
def test_case(ended, place, case):
    results = [it for name, it in ended(place) if name == case.partition("::")[2]]
    faults = [it for result in results for it in result if it.tag in ("failure", "error")]
    assert results and not faults, "\n".join(str(it.text) for it in faults)
    if all(result.find("skipped") is not None for result in results):
        pytest.skip(str(results[0].find("skipped").get("message")))


@needs_triton
def test_kernels_compile_for_a_gpu_that_is_not_there(monkeypatch, tmp_path):
    """The interpreter forgives what the compiler does not; this compiles, and launches nothing."""
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver, jit

    compiled = []

    def compile_only(self, grid):
        def run(*args, **kwargs):
            compiled.append(self.run(*args, grid=grid, warmup=True, **kwargs))

        return run

    gpu = SimpleNamespace(
        get_current_target=lambda: GPUTarget("cuda", 90, 32),
        get_current_device=lambda: 0,
        get_current_stream=lambda device: 0,
    )
    monkeypatch.setattr(driver, "_active", gpu)
    monkeypatch.setattr(jit.KernelInterface, "__getitem__", compile_only)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    x, sizes = torch.zeros(1, 3, 1, 2), torch.ones(1, 2, dtype=torch.int64)
    for weight in (torch.zeros(1, 3), torch.zeros(1, 3, 3)):
        output = triton_backend.forward(x, weight, ("left",), sizes)
        triton_backend.backward(output, output, weight, ("left",), sizes)
    assert {"sm_90" in kernel.asm["ptx"] for kernel in compiled} == {True}
    assert len({kernel.name for kernel in compiled}) == 3


def test_without_a_gpu_the_back_end_says_so(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    reason = triton_backend.unavailable(torch.device("cpu"), torch.float32, "identity")
    assert "'cpu'" in reason


def test_without_triton_the_back_end_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton.language", None)
    monkeypatch.setattr(triton_backend, "_missing", triton_backend._missing.__wrapped__)
    reason = triton_backend.unavailable(torch.device("cuda"), torch.float32, "identity")
    assert "needs Triton" in reason


@needs_triton
@pytest.mark.parametrize("kind", ["identity", "full"])
def test_without_a_gpu_cuda_is_refused_in_a_sentence(monkeypatch, kind):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "needs a GPU" in unavailable_backends("cuda", torch.float32, kind)["triton"]
