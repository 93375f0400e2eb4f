"""Values of Detectron2's own keys on which its R-CNN models fail, refused by the key's name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec

from ..errors import IONError
from ..value_rules import (
    BELOW_1,
    COUNT,
    COUNT_OR_0,
    POSITIVE,
    SHARE,
    Rule,
    check_rules,
    one_of,
    several,
)


def nested(lists: Any) -> list[Any]:
    """A list of anchors for each feature; Detectron2 also takes one plain list for all."""
    plain = all(isinstance(x, (int, float)) for x in lists)
    return [list(lists)] if plain else list(lists)


_THRESHOLDS = (
    lambda v: len(v) > 0 and list(v) == sorted(v) and all(0 < x <= 1 for x in v),
    "a list of rising numbers above 0 and at most 1",
)
_each_feature = several(several(POSITIVE))[0]
_ANCHORS = (lambda lists: _each_feature(nested(lists)), "lists of numbers above 0")
_SQUARES = (
    lambda lists: all(POSITIVE[0](side) for sides in nested(lists) for side in sides),
    "lists of numbers above 0, which may be empty",
)
_RULES: dict[str, Rule] = {
    "MODEL.ROI_HEADS.NUM_CLASSES": COUNT_OR_0,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": COUNT,
    "MODEL.ROI_HEADS.POSITIVE_FRACTION": SHARE,
    "MODEL.ROI_HEADS.IOU_THRESHOLDS": _THRESHOLDS,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": SHARE,
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": SHARE,
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": one_of(
        "ROIPool", "ROIAlign", "ROIAlignV2", "ROIAlignRotated"
    ),
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": COUNT,
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": COUNT_OR_0,
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": several(POSITIVE, 4),
    "MODEL.CONTEXT.NUM_STACKS": COUNT,
    "MODEL.CONTEXT.HIDDEN_DIM": COUNT_OR_0,
    "MODEL.CONTEXT.OUT_DIM": COUNT_OR_0,
    "MODEL.CONTEXT.DROPOUT": BELOW_1,
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": COUNT,
    "MODEL.RPN.POSITIVE_FRACTION": SHARE,
    "MODEL.RPN.IOU_THRESHOLDS": _THRESHOLDS,
    "MODEL.RPN.NMS_THRESH": SHARE,
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": COUNT,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": COUNT,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": COUNT,
    "MODEL.RPN.POST_NMS_TOPK_TEST": COUNT,
    "MODEL.RPN.BBOX_REG_WEIGHTS": several(POSITIVE, 4),
    "MODEL.ANCHOR_GENERATOR.SIZES": _ANCHORS,
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": _ANCHORS,
    "MODEL.ANCHOR_GENERATOR.SQUARE_SIZES": _SQUARES,
    "MODEL.ANCHOR_GENERATOR.OFFSET": BELOW_1,
}


def check_values(cfg: CfgNode) -> None:
    """Refuse values of a model of the R-CNN family that are out of their range.

    Raises:
        IONError: one is; the message names the key.
    """
    check_rules(cfg, _RULES)
    for part in ("ROI_HEADS", "RPN"):
        labels, ranges = cfg.MODEL[part].IOU_LABELS, len(cfg.MODEL[part].IOU_THRESHOLDS) + 1
        if len(labels) != ranges or not set(labels) <= {-1, 0, 1}:
            raise IONError(
                f"MODEL.{part}.IOU_LABELS is {labels!r}; give one of -1, 0 and 1 for each of the "
                f"{ranges} ranges that MODEL.{part}.IOU_THRESHOLDS makes."
            )
    if cfg.MODEL.ROI_HEADS.NAME in ("CascadeROIHeads", "IONCascadeROIHeads"):
        _check_cascade(cfg)


def _check_cascade(cfg: CfgNode) -> None:
    name, cascade = cfg.MODEL.ROI_HEADS.NAME, cfg.MODEL.ROI_BOX_CASCADE_HEAD
    ious, first = list(cascade.IOUS), list(cfg.MODEL.ROI_HEADS.IOU_THRESHOLDS)
    if not cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG:
        raise IONError(
            f"MODEL.ROI_HEADS.NAME is {name!r}, whose stages refine one box for all classes; set "
            "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG to True."
        )
    if len(cascade.BBOX_REG_WEIGHTS) != len(ious) or ious[:1] != first[:1]:
        raise IONError(
            f"MODEL.ROI_BOX_CASCADE_HEAD.IOUS is {ious}; give one for each of the "
            f"{len(cascade.BBOX_REG_WEIGHTS)} stages in its BBOX_REG_WEIGHTS, the first that of "
            f"MODEL.ROI_HEADS.IOU_THRESHOLDS ({first[0]})."
        )


def check_rpn(cfg: CfgNode, shapes: Mapping[str, ShapeSpec]) -> None:
    """Refuse features and anchors from which no region proposal network can be made.

    Raises:
        IONError: features are missing, unknown, named twice or of unequal channels, or the lists
            of anchors do not fit them.
    """
    names = check_features("MODEL.RPN.IN_FEATURES", cfg.MODEL.RPN.IN_FEATURES, shapes)
    channels = {name: shapes[name].channels for name in names}
    if len(set(channels.values())) > 1:
        raise IONError(
            f"MODEL.RPN.IN_FEATURES names features of unequal channels ({channels}), but the RPN "
            "reads all with the same convolutions; name features of equal channels."
        )
    sizes, ratios = (_anchor_counts(cfg, key, names) for key in ("SIZES", "ASPECT_RATIOS"))
    anchors = [s * r for s, r in zip(sizes, ratios)]
    keys = "SIZES and ASPECT_RATIOS"
    if cfg.MODEL.ANCHOR_GENERATOR.NAME == "IONAnchorGenerator":
        anchors = [n + q for n, q in zip(anchors, _anchor_counts(cfg, "SQUARE_SIZES", names))]
        keys = "SIZES, ASPECT_RATIOS and SQUARE_SIZES"
    if len(set(anchors)) > 1:
        raise IONError(
            f"MODEL.ANCHOR_GENERATOR.{keys} give unequal numbers of anchors ({anchors}) to the "
            "features of MODEL.RPN.IN_FEATURES; give each feature equally many."
        )


def check_features(key: str, names: Sequence[str], shapes: Mapping[str, ShapeSpec]) -> list[str]:
    """Refuse what a key names unless it can be read from a backbone's ``shapes``; returns it.

    Raises:
        IONError: there is none, one is unknown, or one is there twice.
    """
    unknown = [name for name in names if name not in shapes]
    returned = ", ".join(shapes)
    if unknown:
        cure = "add to the backbone's OUT_FEATURES."
        if key.endswith("IN_FEATURES") and all(str(it).startswith("context") for it in unknown):
            cure = (
                "set MODEL.BACKBONE.NAME to 'build_ion_context_backbone', which adds 'context' "
                "(further ones: MODEL.CONTEXT.ALL_STACKS, or 'Branches')."
            )
        raise IONError(
            f"{key} names {', '.join(map(repr, unknown))}, but the backbone returns only "
            f"{returned}; choose from these, or {cure}"
        )
    if not names or len(set(names)) != len(names):
        fault = f"names a feature twice ({', '.join(names)})" if names else "names no feature"
        raise IONError(f"{key} {fault}; name different ones of {returned}.")
    return list(names)


def deepest_of(names: Sequence[str], shapes: Mapping[str, ShapeSpec]) -> str:
    """The feature with the largest stride; of several, that of the largest numbers, or the last."""
    return max(reversed(names), key=lambda name: (shapes[name].stride, depth(name)))


def depth(name: str) -> list[int]:
    """The numbers in a feature's name, which order stages: "stage12" lies behind "stage9"."""
    return [int(digits) for digits in re.findall(r"\d+", name)]


def _anchor_counts(cfg: CfgNode, key: str, names: Sequence[str]) -> list[int]:
    """How many sizes or aspect ratios each of the RPN's features has."""
    lists = nested(cfg.MODEL.ANCHOR_GENERATOR[key])
    if len(lists) not in (1, len(names)):
        raise IONError(
            f"MODEL.ANCHOR_GENERATOR.{key} has {len(lists)} lists, but MODEL.RPN.IN_FEATURES "
            f"names {len(names)} features ({', '.join(names)}); give one list for each, or one "
            "for all."
        )
    return [len(x) for x in (lists * len(names) if len(lists) == 1 else lists)]
