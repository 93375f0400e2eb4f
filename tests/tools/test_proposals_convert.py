"""Other names for images, images that are missing, and several sets in one."""

import numpy as np
import pytest
from proposals_convert import for_dataset, merge_proposals
from refusals import refused

from ion_d2.data.proposals import Proposals

DICTS = [
    {"image_id": 9, "file_name": "/d/COCO_val2014_000000000009.jpg", "width": 40, "height": 30},
    {"image_id": 5, "file_name": "/d/COCO_val2014_000000000005.jpg", "width": 40, "height": 30},
]
BOX = np.array([[0, 0, 4, 4]], dtype=np.float32)


def one_box(ids, x=0):
    return Proposals(list(ids), [BOX + x] * len(ids), [[0.5]] * len(ids), source="p.mat")


def test_images_called_by_file_or_by_id():
    stems = ["COCO_val2014_000000000001", "COCO_val2014_000000000005", "COCO_val2014_000000000009"]
    for ids in (stems, ["1", "5", "9"], [1, 5, 9]):
        proposals = one_box(ids)
        proposals.boxes[1] = BOX + 1
        found = for_dataset(proposals, DICTS, "set")
        assert found.ids == [9, 5]
        np.testing.assert_array_equal(found.boxes, [BOX, BOX + 1])


def test_a_name_that_is_an_id_and_a_file_of_two_images():
    """Ids that count the files in the order of their names: 1.jpg, 10.jpg, 2.jpg."""
    dicts = [
        {"image_id": number, "file_name": f"/d/{name}.jpg", "width": 40, "height": 30}
        for number, name in enumerate(("1", "10", "2"))
    ]
    proposals = one_box(["1", "10", "2"])
    for number in range(3):
        proposals.boxes[number] = BOX + number
    found = for_dataset(proposals, dicts, "set", by_file=True)
    assert found.ids == [0, 1, 2]
    np.testing.assert_array_equal(found.boxes, [BOX, BOX + 1, BOX + 2])
    with refused("p.mat", "'1'", "set"):
        for_dataset(proposals, dicts, "set")


CLIPS = [
    {"image_id": f"{clip}/im0", "file_name": f"/d/{clip}/im0.jpg", "width": 40, "height": 30}
    for clip in "ab"
]


def test_images_in_subfolders_are_called_by_their_paths():
    for ids in (["a/im0", "b/im0"], ["b/im0", "c/im0", "a/im0"]):
        proposals = one_box(ids)
        proposals.boxes[ids.index("b/im0")] = BOX + 1
        found = for_dataset(proposals, CLIPS, "set", by_file=True)
        assert found.ids == ["a/im0", "b/im0"]
        np.testing.assert_array_equal(found.boxes, [BOX, BOX + 1])
    alone = for_dataset(one_box(["a/im0"]), CLIPS, "set", fill=True, by_file=True)
    assert [len(boxes) for boxes in alone.boxes] == [1, 0]
    # A folder of folders that the dataset does not have, and one that holds more than it.
    assert for_dataset(one_box(["0/im0"]), CLIPS[:1], "set", by_file=True).ids == ["a/im0"]
    more = for_dataset(one_box(["a/im0", "c/im0"]), CLIPS[:1], "set", by_file=True)
    assert more.ids == ["a/im0"]
    above = [{**CLIPS[0], "image_id": "im0", "file_name": "/d/im0.jpg"}, CLIPS[0]]
    for ids in (["a/im0"], ["a/im0", "c/im0"]):
        part = for_dataset(one_box(ids), above, "set", fill=True, by_file=True)
        assert [len(boxes) for boxes in part.boxes] == [0, 1]
    with refused("p.mat", "another image set"):
        for_dataset(one_box(["c/im0", "d/im0"]), CLIPS[:1], "set", fill=True, by_file=True)


@pytest.mark.parametrize("by_file", [True, False])
def test_a_name_that_two_images_could_have_is_refused(by_file):
    with refused("p.mat", "'im0'", "/d/a/im0.jpg", "/d/b/im0.jpg", "set"):
        for_dataset(one_box(["im0"]), CLIPS, "set", fill=True, by_file=by_file)
    assert for_dataset(one_box(["im0"]), CLIPS[1:], "set", by_file=by_file).ids == ["b/im0"]


def test_missing_images_are_filled_only_on_demand():
    with refused("p.mat", "1 of the 2 images", "'9'", "--fill"):
        for_dataset(one_box(["5"]), DICTS, "set")
    found = for_dataset(one_box(["5"]), DICTS, "set", fill=True)
    assert found.ids == [9, 5] and [len(b) for b in found.boxes] == [0, 1]
    with refused("p.mat", "another image set"):
        for_dataset(one_box(["77"]), DICTS, "set", fill=True)


def test_merged_boxes_alternate_by_rank_and_occur_once():
    left = Proposals(["a"], [[[1, 1, 9, 9], [2, 2, 9, 9], [3, 3, 9, 9]]], [[0.1, 0.3, 0.2]])
    right = Proposals(["b", "a"], [BOX, [[5, 5, 9, 9], [2, 2, 9, 9]]], [[0], [70, 90]])
    right_a = Proposals(["a"], right.boxes[1:], right.scores[1:])
    merged = merge_proposals([left, right_a])
    # By rank: 2 3 1 and 2 5.
    np.testing.assert_array_equal(merged.boxes[0][:, 0], [2, 3, 5, 1])
    np.testing.assert_array_equal(merged.scores[0], [0, -1, -2, -3])
    with refused("'b'", "one of them only"):
        merge_proposals([left, right])
