"""How many of the objects a set of proposals covers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from detectron2.structures import Boxes, BoxMode, pairwise_iou

from .image_boxes import ground_truth_from_dict
from .voc_ap import COCO_THRESHOLDS


@dataclass(frozen=True)
class ProposalRecall:
    """Share of objects covered, L numbers of proposals by T overlaps."""

    limits: tuple[int, ...]  # (L,) the best proposals of each image that count
    thresholds: np.ndarray  # (T,) IoU from which a proposal covers an object
    recall: np.ndarray  # (L, T) share of the objects covered, 0 to 1; NaN where there are none
    mean_number: np.ndarray  # (L,) proposals an image that really were there
    num_objects: int  # to be covered
    num_images: int  # those without objects included

    def at(self, threshold: float) -> np.ndarray:
        """(L,) recall at one of the thresholds."""
        return self.recall[:, np.abs(self.thresholds - threshold).argmin()]

    @property
    def average(self) -> np.ndarray:
        """(L,) average recall (COCO's "AR"): the mean over the thresholds."""
        return self.recall.mean(axis=1)


def evaluate_proposals(
    dicts: Sequence[dict[str, Any]],
    limits: Sequence[int] = (100, 300, 1000, 2000),
    thresholds: Sequence[float] = COCO_THRESHOLDS,
) -> ProposalRecall:
    """Measure the recall of proposals.

    A proposal covers one object at most: the pair with the largest overlap is taken first, then the
    largest among the rest, and so on, as in Detectron2's evaluation of proposals. (That one leaves
    out the objects of images without any proposal; here they count as missed.) Crowds and objects
    marked difficult do not count.

    Args:
        dicts: dataset dicts with "annotations", "proposal_boxes" and "proposal_bbox_mode", the best
            proposal first, as ``ion_d2.data.proposals.add_proposals`` makes them.
        limits: numbers of proposals per image to look at.
        thresholds: IoU from which an object counts as covered.
    """
    overlaps: list[list[np.ndarray]] = [[] for _ in limits]
    for record in dicts:
        iou = _overlaps(record)
        for limit, found in zip(limits, overlaps):
            found.append(_assign(iou[:limit]))
    covered = [np.concatenate([np.zeros(0), *found]) for found in overlaps]
    numbers = np.array([len(record["proposal_boxes"]) for record in dicts])
    number_objects = len(covered[0])
    # Overlaps are float32, in which 0.7 is a little less.
    hits = np.array([[(c >= t - 1e-6).sum() for t in thresholds] for c in covered], dtype=float)
    return ProposalRecall(
        limits=tuple(limits),
        thresholds=np.asarray(thresholds),
        recall=hits / number_objects if number_objects else np.full(hits.shape, np.nan),
        mean_number=np.array([np.minimum(numbers, limit).mean() for limit in limits]),
        num_objects=number_objects,
        num_images=len(dicts),
    )


def _overlaps(record: dict[str, Any]) -> torch.Tensor:
    """(proposals, objects) IoU of one image."""
    truth = ground_truth_from_dict(record)
    objects = torch.tensor(truth.boxes[~truth.difficult], dtype=torch.float32)
    proposals = np.asarray(record["proposal_boxes"], dtype=np.float32).reshape(-1, 4)
    proposals = BoxMode.convert(proposals, record["proposal_bbox_mode"], BoxMode.XYXY_ABS)
    return pairwise_iou(Boxes(torch.from_numpy(proposals)), Boxes(objects))


def _assign(iou: torch.Tensor) -> np.ndarray:
    """The overlap of each object with its own proposal, in any order; 0 for those left over."""
    iou, (num_proposals, num_objects) = iou.clone(), iou.shape
    found = np.zeros(num_objects)
    for i in range(min(num_proposals, num_objects)):
        best = int(iou.argmax())
        row, column = divmod(best, num_objects)
        found[i] = float(iou[row, column])
        iou[row, :] = -1
        iou[:, column] = -1
    return found
