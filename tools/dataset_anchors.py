"""Objects against a config's anchors, and sizes that fit them better."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from dataset_labels import Dataset, show_objects
from dataset_rules import Finding
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone

from ion_d2.data.label_faults import LINE, Objects, anchor_shapes, best_overlaps
from ion_d2.modeling.unread_settings import check_read_features

# Sizes are tried at these factors, in quarters of an octave; ratios at these beside the config's.
_FACTORS = [2 ** (step / 4) for step in range(-12, 13)]
_RATIOS = [[], [0.33, 3.0], [0.25, 0.33, 3.0, 4.0]]
# One more anchor in each cell must help at least this share of the objects.
_PRICE = 0.02
# The share of objects without a good anchor that is nothing to speak of.
_USUAL = 0.5
# By how much a share must fall before other sizes are worth naming, and how many objects decide.
_WORTH, _SAMPLE = 0.1, 1000


class Anchors(NamedTuple):
    """How a config's anchors fit the objects of a dataset.

    Attributes:
        sizes: MODEL.ANCHOR_GENERATOR.SIZES, or those to set.
        ratios: MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS likewise.
        per_cell: how many anchors a cell has.
        weak: share of the objects that reach the higher of MODEL.RPN.IOU_THRESHOLDS with none.
        lost: share that does not even reach the lower one.
        strides: of the RPN's features.
    """

    sizes: list[list[float]]
    ratios: list[list[float]]
    per_cell: int
    weak: float
    lost: float
    strides: Sequence[int]

    def settings(self) -> str:
        """The two keys as on a command line."""
        node = "MODEL.ANCHOR_GENERATOR"
        sizes, ratios = (
            ", ".join(f"[{', '.join(f'{value:g}' for value in level)}]" for level in values)
            for values in (self.sizes, self.ratios)
        )
        return f'{node}.SIZES "[{sizes}]" {node}.ASPECT_RATIOS "[{ratios}]"'


def find_strides(cfg: CfgNode) -> list[int]:
    """The strides of the RPN's features, as the config's backbone has them."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.TIMM.WEIGHTS = ""  # which need not be here
    backbone = build_backbone(cfg)
    check_read_features(cfg, backbone)
    shapes: dict[str, ShapeSpec] = backbone.output_shape()
    return [shapes[name].stride for name in cfg.MODEL.RPN.IN_FEATURES]


def find_anchor_faults(dataset: Dataset, cfg: CfgNode, strides: Sequence[int]) -> Iterator[Finding]:
    """Objects that no anchor overlaps enough."""
    objects = dataset.objects
    best, usable = best_overlaps(objects, cfg, anchor_shapes(cfg), strides), _usable(objects)
    lost, weak = (usable & (best < limit) for limit in _limits(cfg))
    yield from show_objects("no-anchor", dataset, lost)
    if (count := int(weak.sum())) > _USUAL * usable.sum():
        yield Finding("weak-anchor", dataset.name, f"{count:,} of {usable.sum():,} objects")


def fit_anchors(datasets: Sequence[Dataset], cfg: CfgNode, strides: Sequence[int]) -> list[Anchors]:
    """How the config's anchors fit, and then sizes and ratios that fit clearly better, if any."""
    objects = _sample([dataset.objects for dataset in datasets])
    cfg = cfg.clone()
    cfg.defrost()
    node = cfg.MODEL.ANCHOR_GENERATOR
    now = _measure(objects, cfg, strides, node.SIZES, node.ASPECT_RATIOS)
    tried = [
        _measure(objects, cfg, strides, sizes, ratios)
        for sizes in _other_sizes(now.sizes)
        for ratios in ([sorted({*each, *more}) for each in now.ratios] for more in _RATIOS)
    ]
    best = min(tried, key=lambda each: each.weak + each.lost + _PRICE * each.per_cell)
    gain = max(now.weak - best.weak, now.lost - best.lost)
    return [now, best] if gain >= _WORTH else [now]


def anchor_sentences(anchors: Sequence[Anchors], cfg: CfgNode | None) -> list[str]:
    """How the anchors fit, and which would fit better."""
    if cfg is None or not anchors:
        return []
    low, high = min(cfg.MODEL.RPN.IOU_THRESHOLDS), max(cfg.MODEL.RPN.IOU_THRESHOLDS)
    now = anchors[0]
    resized = f"INPUT.MIN_SIZE_TRAIN {tuple(cfg.INPUT.MIN_SIZE_TRAIN)}"
    told = [
        f"Anchors: {now.settings()}, {now.per_cell} in a cell, at the strides "
        f"{', '.join(map(str, now.strides))} and {resized}. {now.weak:.0%} of the objects have "
        f"no anchor with an IoU of {high:g} or more, and {now.lost:.1%} none with {low:g} or more."
    ]
    for better in anchors[1:]:
        told.append(
            f"Better: {better.per_cell} in a cell, with which these are {better.weak:.0%} and "
            f"{better.lost:.1%}: {better.settings()}"
        )
    return told


def _measure(
    objects: Objects, cfg: CfgNode, strides: Sequence[int], sizes: Any, ratios: Any
) -> Anchors:
    node = cfg.MODEL.ANCHOR_GENERATOR
    node.SIZES = [[float(size) for size in level] for level in sizes]
    node.ASPECT_RATIOS = [[float(ratio) for ratio in level] for level in ratios]
    shapes = anchor_shapes(cfg)
    best = best_overlaps(objects, cfg, shapes, strides)
    lost, weak = (float((best < limit).mean()) if len(best) else 0.0 for limit in _limits(cfg))
    return Anchors(node.SIZES, node.ASPECT_RATIOS, len(shapes[0]), weak, lost, strides)


def _limits(cfg: CfgNode) -> tuple[float, float]:
    return min(cfg.MODEL.RPN.IOU_THRESHOLDS), max(cfg.MODEL.RPN.IOU_THRESHOLDS)


def _other_sizes(sizes: Sequence[Sequence[float]]) -> Iterator[list[list[float]]]:
    """The sizes times a factor, as many as there are and with one more half-way to the next."""
    for factor in _FACTORS:
        scaled = [[round(size * factor) for size in level] for level in sizes]
        more = [[*level, *(round(size * 2**0.5) for size in level)] for level in scaled]
        for levels in (scaled, more):
            if all(min(level) > 0 and len({*level}) == len(level) for level in levels):
                yield [sorted(level) for level in levels]


def _usable(objects: Objects) -> np.ndarray:
    return objects.learned & ((objects.box[:, 2:] - objects.box[:, :2]).min(axis=1) > LINE)


def _sample(several: Sequence[Objects]) -> Objects:
    """Some of the usable objects, evenly spread."""
    joined = Objects(*map(np.concatenate, zip(*several)))
    chosen = np.flatnonzero(_usable(joined))
    chosen = chosen[np.linspace(0, len(chosen) - 1, min(len(chosen), _SAMPLE)).astype(int)]
    return Objects(*(column[chosen] for column in joined))
