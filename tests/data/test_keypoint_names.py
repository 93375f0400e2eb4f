"""Names of keypoints in COCO files, and which change places in a mirror."""

import pytest
from detectron2.data.datasets.builtin_meta import (
    COCO_PERSON_KEYPOINT_FLIP_MAP,
    COCO_PERSON_KEYPOINT_NAMES,
)
from refusals import refused

from ion_d2.data.keypoint_names import flip_pairs, keypoint_metadata, unpaired_names


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (["thumb", "little"], []),
        (["left_eye", "nose", "right_eye"], [("left_eye", "right_eye")]),
        (["EyeRight", "EyeLeft"], [("EyeLeft", "EyeRight")]),
        (["rightear", "leftear"], [("leftear", "rightear")]),
        (["LEFT HIP", "RIGHT HIP"], [("LEFT HIP", "RIGHT HIP")]),
        (["eye.l", "eye.r", "leftmost"], [("eye.l", "eye.r")]),
        (["L_hand", "R_hand", "tail"], [("L_hand", "R_hand")]),
        (["l-ear", "r-ear", "tail"], [("l-ear", "r-ear")]),
        (["cleft", "lip"], []),
    ],
)
def test_names_of_both_sides_change_places(names, pairs):
    assert flip_pairs(names) == pairs
    assert unpaired_names(names) == []


def test_the_pairs_of_cocos_persons_are_detectron2s():
    assert flip_pairs(COCO_PERSON_KEYPOINT_NAMES) == list(COCO_PERSON_KEYPOINT_FLIP_MAP)


@pytest.mark.parametrize("name", ["left_eye", "eyeRight", "LEFT", "right.l"])
def test_a_side_without_its_twin_is_found(name):
    assert unpaired_names(["nose", name]) == [name]
    metadata = keypoint_metadata([{"name": "a", "keypoints": ["nose", name]}], "f.json")
    assert "keypoint_flip_map" not in metadata and metadata["keypoint_names"] == ["nose", name]


def test_skeleton_and_names_of_the_one_category_that_has_some():
    hand = {"name": "hand", "keypoints": ["a", "b", "c"], "skeleton": [[1, 2], [3, 2]]}
    metadata = keypoint_metadata([{"name": "x"}, hand, {"name": "y", "keypoints": []}], "f.json")
    lines = [(a, b) for a, b, _ in metadata["keypoint_connection_rules"]]
    assert lines == [("a", "b"), ("c", "b")]
    assert metadata["keypoint_flip_map"] == []
    assert keypoint_metadata([hand, {"name": "y", "keypoints": ["q"]}], "f.json") == {}
    assert keypoint_metadata([{"name": "x"}], "f.json") == {}


@pytest.mark.parametrize(
    "change",
    [
        {"keypoints": "ab"},
        {"keypoints": ["a", 2]},
        {"keypoints": ["a", " "]},
        {"keypoints": ["a", "a"]},
        {"keypoints": 2},
        {"skeleton": [[0, 1]]},
        {"skeleton": [[1, 3]]},
        {"skeleton": [[1]]},
        {"skeleton": [["a", "b"]]},
        {"skeleton": 1},
        {"skeleton": [1, 2]},
    ],
)
def test_wrong_names_and_skeletons_are_told(change):
    category = {"name": "hand", "keypoints": ["a", "b"], **change}
    with refused("f.json", "categories[0] (hand)", [*change][0]):
        keypoint_metadata([category], "f.json")
