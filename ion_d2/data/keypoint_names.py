"""Names of keypoints: those in a file of COCO's format, and which change places in a mirror."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from .coco_fields import fault, wrong

# A color for the lines of a skeleton, which COCO's format does not give.
_LINE_COLOR = (102, 204, 255)
_SIDES = (("left", "right"), ("Left", "Right"), ("LEFT", "RIGHT"))
_LETTERS = (("l", "r"), ("L", "R"))


def keypoint_metadata(categories: Sequence[dict[str, Any]], source: str) -> dict[str, Any]:
    """What Detectron2's MetadataCatalog holds of the keypoints in a COCO file's categories.

    Returns:
        "keypoint_names", "keypoint_connection_rules" (the skeleton), and "keypoint_flip_map" unless
        a name has a side and its twin is missing. Empty if no category has keypoints, or two have
        different ones.

    Raises:
        IONError: names or skeleton are wrong; ``source`` is the file, for the message.
    """
    with_points = [(i, c) for i, c in enumerate(categories) if c.get("keypoints")]
    for index, category in with_points:
        _check(category, f"categories[{index}] ({category['name']})", source)
    lists = [category["keypoints"] for _, category in with_points]
    if not lists or any(names != lists[0] for names in lists):
        return {}
    names = lists[0]
    lines = with_points[0][1].get("skeleton") or ()
    rules = [(names[a - 1], names[b - 1], _LINE_COLOR) for a, b in lines]
    metadata = {"keypoint_names": names, "keypoint_connection_rules": rules}
    if not unpaired_names(names):
        metadata["keypoint_flip_map"] = flip_pairs(names)
    return metadata


def flip_pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs (left, right) of keypoints that change places when a picture is mirrored.

    Names may be such as "left_eye", "EyeRight" or "eye.l".
    """
    pairs = [(name, twin) for name in names for twin in _twins(name) if twin in names]
    return list(dict.fromkeys(pairs))


def unpaired_names(names: Sequence[str]) -> list[str]:
    """The names of keypoints that have the word "left" or "right", but no twin."""
    paired = {name for pair in flip_pairs(names) for name in pair}
    return [name for name in names if name not in paired and _has_side(name)]


def _has_side(name: str) -> bool:
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)
    return any(word.lower() in ("left", "right") for word in words)


def _twins(left: str) -> list[str]:
    """What a name of the left side could be called on the right."""
    words = [left.replace(a, b) for a, b in _SIDES if a in left]
    letters = [re.sub(rf"(?<![A-Za-z]){a}(?![A-Za-z])", b, left) for a, b in _LETTERS]
    return [twin for twin in (*words, *letters) if twin != left]


def _check(category: dict[str, Any], place: str, source: str) -> None:
    names, skeleton = category["keypoints"], category.get("skeleton") or []
    sound = isinstance(names, list) and all(isinstance(n, str) and n.strip() for n in names)
    if not sound or len(set(names)) < len(names):
        raise fault(source, place, wrong(category, "keypoints", "a list of different names"))
    numbers = range(1, len(names) + 1)
    sound = isinstance(skeleton, list) and all(
        isinstance(line, list)
        and len(line) == 2
        and all(isinstance(n, int) and n in numbers for n in line)
        for line in skeleton
    )
    if not sound:
        wanted = f"pairs of numbers 1 to {len(names)} of keypoints"
        raise fault(source, place, wrong(category, "skeleton", wanted))
