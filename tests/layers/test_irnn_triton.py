"""The Triton back-end of the spatial IRNN: interpreted on the CPU, and on a GPU if there is one."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ion_d2.layers.irnn import triton_backend

CASES = Path(__file__).with_name("irnn_triton_cases.py")
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def run_cases(**environment):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(CASES)]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=600
    )


@needs_triton
def test_cases_in_the_interpreter():
    run = run_cases(TRITON_INTERPRET="1", CUDA_VISIBLE_DEVICES="")
    assert run.returncode == 0, run.stdout + run.stderr


@needs_triton
@needs_gpu
def test_cases_on_a_gpu():
    run = run_cases(TRITON_INTERPRET="0")
    assert run.returncode == 0, run.stdout + run.stderr


def test_without_a_gpu_the_back_end_says_so(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    reason = triton_backend.unavailable(torch.device("cpu"), torch.float32, "identity")
    assert "'cpu'" in reason


def test_without_triton_the_back_end_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton.language", None)
    monkeypatch.setattr(triton_backend, "_missing", triton_backend._missing.__wrapped__)
    reason = triton_backend.unavailable(torch.device("cuda"), torch.float32, "identity")
    assert "needs Triton" in reason
