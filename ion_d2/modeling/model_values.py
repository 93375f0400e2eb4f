"""Values of Detectron2's own keys that its models trip over, told by the name of the key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Callable

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec

from ..errors import IONError

_POOLERS = ("ROIPool", "ROIAlign", "ROIAlignV2", "ROIAlignRotated")
_SHARE = (lambda x: 0 <= x <= 1, "a number from 0 to 1")
_POOLER = (lambda x: x in _POOLERS, f"one of {', '.join(_POOLERS)}")
_BINS = (lambda x: _is_whole(x) and x > 0, "a whole number above 0")
_COUNT = (lambda x: _is_whole(x) and x >= 0, "a whole number from 0 on")

# Whether a value is right, and what is right.
Rule = tuple[Callable[[Any], bool], str]
_RULES: dict[str, Rule] = {
    "MODEL.ROI_HEADS.NUM_CLASSES": _COUNT,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": _BINS,
    "MODEL.ROI_HEADS.POSITIVE_FRACTION": _SHARE,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": _SHARE,
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": _SHARE,
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": _POOLER,
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": _BINS,
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": _COUNT,
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": (lambda x: _numbers(x, 4), "four numbers above 0"),
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": _BINS,
    "MODEL.RPN.POSITIVE_FRACTION": _SHARE,
    "MODEL.RPN.NMS_THRESH": _SHARE,
    **{
        f"MODEL.RPN.{order}_NMS_TOPK_{use}": _BINS
        for order in ("PRE", "POST")
        for use in ("TRAIN", "TEST")
    },
    "MODEL.RPN.BBOX_REG_WEIGHTS": (lambda x: _numbers(x, 4), "four numbers above 0"),
    "MODEL.ANCHOR_GENERATOR.SIZES": (lambda x: _anchors(x), "lists of numbers above 0"),
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": (lambda x: _anchors(x), "lists of numbers above 0"),
    "MODEL.ANCHOR_GENERATOR.OFFSET": (lambda x: 0 <= x < 1, "a number from 0 to below 1"),
}
_RPN_HEADS = ("ROI_HEADS", "RPN")


def check_rules(cfg: CfgNode, rules: Mapping[str, Rule]) -> None:
    """Refuse values of a config that break a rule.

    Args:
        cfg: the full config.
        rules: by key; one that this version of Detectron2 does not have is passed over.

    Raises:
        IONError: one does; the message has the key, the value and what it must be.
    """
    for key, (is_right, wanted) in rules.items():
        *parents, name = key.split(".")
        node = cfg
        for parent in parents:
            node = node[parent]
        if name in node and not _keeps(node[name], is_right):
            raise IONError(f"{key} is {node[name]!r}; it must be {wanted}.")


def _keeps(value: Any, is_right: Callable[[Any], bool]) -> bool:
    try:
        return is_right(value)
    except TypeError:  # a text, for instance, which is not to be compared with a number
        return False


def check_values(cfg: CfgNode) -> None:
    """Refuse values of a model of the R-CNN family that are out of their range.

    Args:
        cfg: the full config.

    Raises:
        IONError: one is; the message names the key.
    """
    check_rules(cfg, _RULES)
    for part in _RPN_HEADS:
        node = cfg.MODEL[part]
        _check_thresholds(f"MODEL.{part}", node.IOU_THRESHOLDS, node.IOU_LABELS)


def check_rpn(cfg: CfgNode, shapes: Mapping[str, ShapeSpec]) -> None:
    """Refuse features and anchors that do not make a region proposal network.

    Args:
        cfg: the full config.
        shapes: the backbone's features.

    Raises:
        IONError: there is no feature, one is unknown or named twice, the features have unequal
            channels, or the lists of anchors do not fit them.
    """
    names = check_features("MODEL.RPN.IN_FEATURES", cfg.MODEL.RPN.IN_FEATURES, shapes)
    channels = {name: shapes[name].channels for name in names}
    if len(set(channels.values())) > 1:
        raise IONError(
            f"MODEL.RPN.IN_FEATURES names features of unequal channels ({channels}), but the RPN "
            "reads all with the same convolutions; name features of equal channels."
        )
    anchors = cfg.MODEL.ANCHOR_GENERATOR
    counts = []
    for key in ("SIZES", "ASPECT_RATIOS"):
        lists = _nested(anchors[key])
        if len(lists) not in (1, len(names)):
            raise IONError(
                f"MODEL.ANCHOR_GENERATOR.{key} has {len(lists)} lists, but MODEL.RPN.IN_FEATURES "
                f"names {len(names)} features ({', '.join(names)}); give one list for each, or one "
                "for all."
            )
        counts.append([len(x) for x in (lists * len(names) if len(lists) == 1 else lists)])
    numbers = {sizes * ratios for sizes, ratios in zip(*counts)}
    if len(numbers) > 1:
        raise IONError(
            "MODEL.ANCHOR_GENERATOR.SIZES and ASPECT_RATIOS give unequal numbers of anchors "
            f"({[s * r for s, r in zip(*counts)]}) to the features of MODEL.RPN.IN_FEATURES; give "
            "each feature equally many."
        )


def check_features(key: str, names: Sequence[str], shapes: Mapping[str, ShapeSpec]) -> list[str]:
    """Refuse names of features that a part of the model cannot read.

    Args:
        key: that names them.
        names: its value.
        shapes: the backbone's features.

    Returns:
        The names.

    Raises:
        IONError: there is none, one is unknown, or one is there twice.
    """
    unknown = [name for name in names if name not in shapes]
    returned = ", ".join(shapes)
    if unknown:
        raise IONError(
            f"{key} names {', '.join(map(repr, unknown))}, but the backbone returns only "
            f"{returned}; choose from these."
        )
    if not names or len(set(names)) != len(names):
        fault = f"names a feature twice ({', '.join(names)})" if names else "names no feature"
        raise IONError(f"{key} {fault}; name different ones of {returned}.")
    return list(names)


def _check_thresholds(part: str, thresholds: Any, labels: Any) -> None:
    rising = list(thresholds) == sorted(thresholds) and all(0 < x <= 1 for x in thresholds)
    if not thresholds or not rising:
        raise IONError(
            f"{part}.IOU_THRESHOLDS is {thresholds!r}; give rising numbers above 0 and at most 1."
        )
    if len(labels) != len(thresholds) + 1 or not set(labels) <= {-1, 0, 1}:
        raise IONError(
            f"{part}.IOU_LABELS is {labels!r}; give one of -1, 0 and 1 for each of the "
            f"{len(thresholds) + 1} ranges that {part}.IOU_THRESHOLDS makes."
        )


def _is_whole(x: Any) -> bool:
    return isinstance(x, int) and not isinstance(x, bool)


def _numbers(x: Any, count: int | None = None) -> bool:
    good = all(isinstance(v, (int, float)) and v > 0 for v in x)
    return good and (len(x) == count if count else len(x) > 0)


def _nested(lists: Any) -> list[Any]:
    """Lists of anchors; one list of plain numbers, which Detectron2 takes as well, is all's."""
    plain = all(isinstance(x, (int, float)) for x in lists)
    return [list(lists)] if plain else list(lists)


def _anchors(lists: Any) -> bool:
    nested = _nested(lists)
    return len(lists) > 0 and all(_numbers(x) for x in nested)
