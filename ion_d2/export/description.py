"""What a program must know to use an exported detector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode

# What an exported detector returns, in this order.
OUTPUTS = ("boxes", "scores", "classes")


def describe(cfg: CfgNode, class_names: Sequence[str]) -> dict[str, Any]:
    """Describe input and output of the detector of a config, for JSON.

    Args:
        cfg: the model's full config.
        class_names: a name for every class.

    Returns:
        "classes": names by id; "input": how a picture becomes the one input (see docs/EXPORT.md);
        "outputs": names in their order; "score_threshold": detections score more than this;
        "max_detections"; "device": on which a TorchScript file runs.
    """
    return {
        "classes": list(class_names),
        "input": {
            "name": "image",
            "shape": [len(cfg.MODEL.PIXEL_MEAN), "height", "width"],
            "dtype": "uint8",
            "channels": cfg.INPUT.FORMAT,
            "shortest_side": cfg.INPUT.MIN_SIZE_TEST,
            "longest_side": cfg.INPUT.MAX_SIZE_TEST,
        },
        "outputs": list(OUTPUTS),
        "score_threshold": cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST,
        "max_detections": cfg.TEST.DETECTIONS_PER_IMAGE,
        "device": cfg.MODEL.DEVICE,
    }
