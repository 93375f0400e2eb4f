"""What a detector computes on the way to its detections."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.structures import Boxes
from torch import Tensor, nn

from ion_d2.data.mapper import IONDatasetMapper
from ion_d2.data.run_images import spread_evenly, test_dicts
from ion_d2.evaluation.image_boxes import GroundTruth, ground_truth_from_dict

from .states import StackStates, watch_states


class Sample(NamedTuple):
    """One test image."""

    record: dict[str, Any]  # its dataset dict
    inputs: dict[str, Any]  # what the model is given, with "image" (3, H, W) of 0 to 255
    truth: GroundTruth  # its labeled boxes, in pixels of the file

    @property
    def boxes(self) -> Boxes:
        """The labeled boxes in pixels of the network's input."""
        height, width = self.inputs["image"].shape[1:]
        scale = [width / self.record["width"], height / self.record["height"]] * 2
        return Boxes(torch.as_tensor(self.truth.boxes * np.array(scale), dtype=torch.float32))


class Observation(NamedTuple):
    """What a detector made of one image."""

    features: dict[str, Tensor]  # of the backbone by name, (1, C, H, W)
    states: list[StackStates]  # of every recurrent stack, in the order of the passes


def take_samples(cfg: CfgNode, dataset: str, count: int) -> list[Sample]:
    """Prepare at most ``count`` images, spread evenly over a test dataset, as for its evaluation.

    Raises:
        IONError: an image or a file of proposals cannot be read.
    """
    records = spread_evenly(test_dicts(cfg, dataset, with_proposals=True), count)
    mapper = IONDatasetMapper(cfg, is_train=False)
    return [Sample(r, mapper(r), ground_truth_from_dict(r)) for r in records]


@torch.no_grad()
def observe(model: nn.Module, sample: Sample) -> Observation:
    """Let a two-stage detector in evaluation mode look at an image, and note what it computes.

    Features and states are those of the image itself where its mirror image is averaged in.
    """
    seen: list[dict[str, Tensor]] = []
    handle = model.backbone.register_forward_hook(lambda *call: seen.append(call[-1]))
    try:
        with watch_states(model.backbone) as states:
            model([sample.inputs])
    finally:
        handle.remove()
    return Observation(seen[0], states[: len({stack.name for stack in states})])
