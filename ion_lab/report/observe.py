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
    """One test image.

    Attributes:
        record: its dataset dict.
        inputs: what the model is given, with "image" (3, H, W) of 0 to 255.
        truth: its labeled boxes, in pixels of the file.
    """

    record: dict[str, Any]
    inputs: dict[str, Any]
    truth: GroundTruth

    @property
    def boxes(self) -> Boxes:
        """The labeled boxes in pixels of the network's input."""
        height, width = self.inputs["image"].shape[1:]
        scale = [width / self.record["width"], height / self.record["height"]] * 2
        return Boxes(torch.as_tensor(self.truth.boxes * np.array(scale), dtype=torch.float32))


class Observation(NamedTuple):
    """What a detector made of one image.

    Attributes:
        features: the backbone's features by name, (1, C, H, W).
        states: of every recurrent stack, in the order of the passes.
    """

    features: dict[str, Tensor]
    states: list[StackStates]


def take_samples(cfg: CfgNode, dataset: str, count: int) -> list[Sample]:
    """Prepare images spread evenly over a test dataset, as for its evaluation.

    Args:
        cfg: the run's config.
        dataset: one of ``DATASETS.TEST``.
        count: how many, if there are so many.

    Returns:
        The images.

    Raises:
        IONError: an image or a file of proposals cannot be read.
    """
    records = spread_evenly(test_dicts(cfg, dataset, with_proposals=True), count)
    mapper = IONDatasetMapper(cfg, is_train=False)
    return [Sample(r, mapper(r), ground_truth_from_dict(r)) for r in records]


@torch.no_grad()
def observe(model: nn.Module, sample: Sample) -> Observation:
    """Let a detector look at an image, and note what its backbone computes.

    Args:
        model: a two-stage detector with a ``backbone``, in evaluation mode.
        sample: the image.

    Returns:
        Features and states; those of the image itself where its mirror image is averaged in.
    """
    seen: list[dict[str, Tensor]] = []
    handle = model.backbone.register_forward_hook(lambda *call: seen.append(call[-1]))
    try:
        with watch_states(model.backbone) as states:
            model([sample.inputs])
    finally:
        handle.remove()
    return Observation(seen[0], states[: len({stack.name for stack in states})])
