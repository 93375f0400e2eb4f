"""The same weights, bit for bit, from the same seed."""

from __future__ import annotations

import os

import torch
from detectron2.config import CfgNode

from ..errors import IONError


def make_deterministic(cfg: CfgNode) -> None:
    """Have PyTorch use deterministic operators only, if ``SOLVER.DETERMINISTIC`` asks for it.

    This holds for the process. On the CPU an operator without a deterministic version is an error;
    on a GPU, PyTorch warns of it by name. Equal numbers of threads and processes, and equal
    releases of PyTorch, are up to the user.

    Raises:
        IONError: another setting leaves the outcome to chance.
    """
    if not cfg.SOLVER.DETERMINISTIC:
        return
    if cfg.SEED < 0:
        raise IONError(
            "SOLVER.DETERMINISTIC needs a seed, but SEED is negative; set it to 0 or more."
        )
    if cfg.CUDNN_BENCHMARK:
        raise IONError(
            "CUDNN_BENCHMARK chooses operators by their speed in each run, against "
            "SOLVER.DETERMINISTIC; set one of the two to False."
        )
    # cuBLAS reads it when it starts, and refuses to be deterministic without.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.deterministic = True
    torch.use_deterministic_algorithms(True, warn_only=cfg.MODEL.DEVICE != "cpu")
