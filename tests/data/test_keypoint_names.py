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


WRONG = {
    "keypoints": ("ab", ["a", 2], ["a", " "], ["a", "a"], 2),
    "skeleton": ([[0, 1]], [[1, 3]], [[1]], [["a", "b"]], 1, [1, 2]),
}


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in WRONG.items() for value in values]
)
def test_wrong_names_and_skeletons_are_told(field, value):
    category = {"name": "hand", "keypoints": ["a", "b"], field: value}
    with refused("f.json", "categories[0] (hand)", field):
        keypoint_metadata([category], "f.json")
