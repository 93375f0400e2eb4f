"""Programs in processes of their own, and limits that the system sets to them."""

import contextlib
import os
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing

ROOT = Path(__file__).resolve().parent.parent


def run_python(*args, cwd=None, **variables):
    """Run Python with the project on its path, to the end; what subprocess.run returns."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    env = {**os.environ, "PYTHONPATH": path, **variables}
    command = [sys.executable, *map(str, args)]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)


def start(args, *launcher, **variables):
    """Start train_net.py in a process group of its own, as a shell does."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", **variables}
    command = [sys.executable, *launcher, "train_net.py", *args]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=env, start_new_session=True, **pipes)


def finish(process, timeout=200):
    """Exit status, stdout and stderr of a program that was started."""
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def wait_until(condition, *processes, seconds=120):
    """Wait for something that running programs do."""
    deadline = time.monotonic() + seconds
    while not condition():
        ended = [finish(process) for process in processes if process.poll() is not None]
        assert not ended and time.monotonic() < deadline, ended
        time.sleep(0.02)


def in_two_processes(work, folder, *args):
    """What ``work(rank, *args)`` returns in each of two processes that know each other."""
    if not distributed.is_gloo_available():
        pytest.skip("this PyTorch has no gloo")
    multiprocessing.spawn(_meet, args=(str(folder), work, args), nprocs=2)
    return [torch.load(f"{folder}/{rank}.pth") for rank in range(2)]


def _meet(rank, folder, work, args):
    torch.set_num_threads(1)
    method = f"file://{folder}/meeting"
    distributed.init_process_group("gloo", init_method=method, rank=rank, world_size=2)
    torch.save(work(rank, *args), f"{folder}/{rank}.pth")
    distributed.barrier()
    distributed.destroy_process_group()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def file_size_limit(size):
    """The kernel refuses to let any file grow beyond ``size`` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
