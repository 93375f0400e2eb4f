"""The weights that a run starts from: another's, whole or in part."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from ion_d2.engine.averaging import EMA, averaged_weights
from ion_d2.engine.checkpoint_files import reading, write_atomically

PARTS = ("backbone", "proposal_generator", "roi_heads", "sem_seg_head")
"""Names of a detector's parts."""


def extract_parts(weights: Path, parts: Sequence[str], target: Path) -> None:
    """Write a checkpoint of some parts (``PARTS``) of another's weights, and nothing else.

    Raises:
        IONError: the checkpoint cannot be read, or the target cannot be written.
    """
    with reading(str(weights)):
        checkpoint = torch.load(weights, map_location="cpu", weights_only=True)
        # Their average, where there is one, as a start from all of them takes it.
        model = averaged_weights(checkpoint[EMA]) if EMA in checkpoint else checkpoint["model"]
    kept = {key: value for key, value in model.items() if key.split(".")[0] in parts}
    write_atomically(str(target), lambda file: torch.save({"model": kept}, file))
