"""Faults that the labels show without a picture being opened: of boxes, classes and anchors."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import build_anchor_generator
from detectron2.structures import BoxMode
from detectron2.utils import comm

from ..shell import program, python_command
from .mapper import is_learned
from .outlines import BORDER, LINE, corners_of

logger = logging.getLogger(__name__)

_TINY = 3.0  # pixels, which are too few to have a shape
_CLASSES = 20  # of them named in one line
# What a training warns of, by the rule of tools/check_dataset.py.
_TOLD = {
    "box-inverted": "box(es) with their corners in the wrong order",
    "box-empty": "box(es) that are a point or a line",
    "box-outside": "box(es) beyond the border of the picture",
    "box-repeated": "box(es) that repeat another of the same class",
    "no-anchor": "object(s) that no anchor comes near (MODEL.RPN.IOU_THRESHOLDS)",
}


class Objects(NamedTuple):
    """The labeled objects of dataset dicts as arrays of one length."""

    image: np.ndarray  # index of the dict
    number: np.ndarray  # index among its annotations
    box: np.ndarray  # (N, 4) x0, y0, x1, y1 in pixels of the file
    category: np.ndarray
    size: np.ndarray  # (N, 2) width and height of the picture
    learned: np.ndarray  # whether a training takes it: neither crowd nor, by default, difficult
    cut: np.ndarray  # whether its reader has clipped it by more than a pixel


def collect_objects(records: Sequence[dict[str, Any]], *, use_difficult: bool = False) -> Objects:
    """Take the objects of Detectron2's dataset dicts; of a rotated box, the upright one around."""
    values = chain.from_iterable(_rows(records, use_difficult))
    columns = np.fromiter(values, dtype=np.float64).reshape(-1, 12).T
    image, number, category, in_corners, learned, cut = columns[[0, 1, 2, 9, 10, 11]].astype(int)
    box = columns[3:7].T
    box[in_corners == 0, 2:] += box[in_corners == 0, :2]
    size = columns[7:9].T
    return Objects(image, number, box, category, size, learned.astype(bool), cut.astype(bool))


def _rows(records: Sequence[dict[str, Any]], use_difficult: bool) -> Iterator[tuple[float, ...]]:
    for image, record in enumerate(records):
        size = record["width"], record["height"]
        for number, found in enumerate(record.get("annotations", ())):
            box, mode = found["bbox"], found["bbox_mode"]
            if mode == BoxMode.XYWHA_ABS:
                box, mode = corners_of(found), BoxMode.XYXY_ABS
            in_corners, learned = mode == BoxMode.XYXY_ABS, is_learned(found, use_difficult)
            flags = in_corners, learned, found.get("cut", 0)
            yield image, number, found["category_id"], *box, *size, *flags


def find_box_faults(objects: Objects) -> dict[str, np.ndarray]:
    """The faulty objects, as an (N,) bool array for each of the rules "box-..."."""
    first, last = objects.box[:, :2], objects.box[:, 2:]
    least = (last - first).min(axis=1, initial=np.inf)
    beyond = (first < -BORDER) | (last > objects.size + BORDER)
    places = np.column_stack([objects.image, objects.category, objects.box.round()])
    repeated = np.ones(len(places), dtype=bool)
    repeated[np.unique(places, axis=0, return_index=True)[1]] = False
    return {
        "box-inverted": least < 0,
        "box-empty": (least >= 0) & (least <= LINE),
        "box-outside": beyond.any(axis=1) | objects.cut,
        "box-tiny": (least > LINE) & (least < _TINY),
        "box-repeated": repeated,
    }


def anchor_shapes(cfg: CfgNode) -> list[np.ndarray]:
    """(A, 2) widths and heights of the RPN's anchors for each of its features; [] without any."""
    meta, generator = cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.PROPOSAL_GENERATOR.NAME
    if generator != "RPN" or meta not in ("ION", "GeneralizedRCNN", "ProposalNetwork"):
        return []
    features = [ShapeSpec(stride=1) for _ in cfg.MODEL.RPN.IN_FEATURES]  # shapes do not tell
    corners = [cell.numpy() for cell in build_anchor_generator(cfg, features).cell_anchors]
    return [cell[:, 2:] - cell[:, :2] for cell in corners if cell.shape[1] == 4]


def training_scale(objects: Objects, cfg: CfgNode, shortest: int) -> np.ndarray:
    """The factor (N, 1) by which a training resizes each object's picture; 0 leaves it as it is."""
    if not shortest:
        return np.ones((len(objects.size), 1))
    scale = shortest / objects.size.min(axis=1, keepdims=True)
    longest = objects.size.max(axis=1, keepdims=True) * scale
    return scale * np.minimum(1, cfg.INPUT.MAX_SIZE_TRAIN / longest)


def best_overlaps(
    objects: Objects, cfg: CfgNode, shapes: Sequence[np.ndarray], strides: Sequence[int] = ()
) -> np.ndarray:
    """The greatest IoU (N,) of each object with an anchor, at the sizes of ``INPUT``'s training.

    Args:
        shapes: widths and heights of the anchors of each feature.
        strides: pixels between the cells of each feature; without, every object is compared with
            anchors that are centered on it.
    """
    best = np.zeros(len(objects.box))
    extent = (objects.box[:, 2:] - objects.box[:, :2]).clip(0)
    center = (objects.box[:, 2:] + objects.box[:, :2]) / 2
    for shortest in {min(cfg.INPUT.MIN_SIZE_TRAIN), max(cfg.INPUT.MIN_SIZE_TRAIN)}:
        scale = training_scale(objects, cfg, shortest)
        for anchors, stride in zip(shapes, strides or [0] * len(shapes)):
            off = np.zeros_like(extent)
            if stride:
                start, last = cfg.MODEL.ANCHOR_GENERATOR.OFFSET, objects.size * scale / stride
                cell = (center * scale / stride - start).round().clip(0, np.ceil(last) - 1)
                off = np.abs(center * scale - (cell + start) * stride)
            for anchor in anchors:
                best = np.maximum(best, _overlaps(extent * scale, off, anchor))
    return best


def _overlaps(extent: np.ndarray, off: np.ndarray, anchor: np.ndarray) -> np.ndarray:
    """IoU (N,) of boxes and an anchor whose centers are ``off`` (N, 2) apart."""
    common = np.minimum(np.minimum(extent, anchor), (extent + anchor) / 2 - off).clip(0)
    shared = common.prod(axis=1)
    return shared / (extent.prod(axis=1) + anchor.prod() - shared)


def log_label_faults(cfg: CfgNode, records: Sequence[dict[str, Any]]) -> None:
    """Warn of the faults in the dicts of ``DATASETS.TRAIN``, a line a rule, in the main process."""
    if not comm.is_main_process():
        return
    objects = collect_objects(records, use_difficult=cfg.DATASETS.USE_DIFFICULT)
    found = find_box_faults(objects)
    if shapes := anchor_shapes(cfg):
        lowest = min(cfg.MODEL.RPN.IOU_THRESHOLDS)
        found["no-anchor"] = objects.learned & (best_overlaps(objects, cfg, shapes) < lowest)
    lines = []
    for rule, told in _TOLD.items():
        if rule in found and (images := objects.image[found[rule]]).size:
            lines.append(f"{images.size} {told}, the first in {records[images[0]]['file_name']}")
    classes = MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).get("thing_classes") or []
    learned = set(objects.category[objects.learned])
    if unused := [name for label, name in enumerate(classes) if label not in learned]:
        lines.append(f"no object of {len(unused)} class(es): {', '.join(unused[:_CLASSES])}")
    if lines:
        names = dict.fromkeys([*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST])  # the tool takes each once
        command = [program("tools/check_dataset.py"), *names]
        config = os.path.join(cfg.OUTPUT_DIR, "config.yaml")
        command += ["--config-file", config] if os.path.exists(config) else []
        lines.append(f"more, and what to do: {python_command(*command)}")
    for line in lines:
        logger.warning("Training labels: %s", line)
