"""The proposal file: what is written can be read, by Detectron2 too; what is wrong is told."""

import os
import pickle

import numpy as np
import pytest
from detectron2.data.build import load_proposals_into_dataset
from detectron2.structures import BoxMode
from refusals import refused

from ion_d2.data.proposals import Proposals, rank_scores, read_proposals, write_proposals

BOXES = np.array([[0, 0, 10, 20], [5, 5, 6.5, 7]], dtype=np.float32)


def content(**changes):
    return {"ids": ["a"], "boxes": [BOXES], "objectness_logits": [np.array([1.0, 2.0])], **changes}


def pickled(tmp_path, value, protocol=4):
    path = tmp_path / "p.pkl"
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


def test_detectron2_reads_what_is_written(tmp_path):
    path = tmp_path / "new" / "p.pkl"
    proposals = Proposals(["b", 7], [BOXES, BOXES[:0]], [[0.5, 0.25], []])
    write_proposals(path, proposals)
    assert os.listdir(path.parent) == ["p.pkl"]
    b, seven = load_proposals_into_dataset([{"image_id": "b"}, {"image_id": 7}], str(path))
    np.testing.assert_array_equal(b["proposal_boxes"], BOXES)
    np.testing.assert_array_equal(b["proposal_objectness_logits"], [0.5, 0.25])
    assert b["proposal_bbox_mode"] == BoxMode.XYXY_ABS
    assert seven["proposal_boxes"].shape == (0, 4)
    again = read_proposals(path)
    assert again.ids == ["b", 7] and again.index() == {"b": 0, "7": 1}
    np.testing.assert_array_equal(again.boxes[0], BOXES)
    assert again.source == str(path)


def test_ranks_keep_the_order_in_detectron2(tmp_path):
    boxes = np.arange(4000, dtype=np.float32).reshape(-1, 4)
    write_proposals(tmp_path / "p.pkl", Proposals(["a"], [boxes], [rank_scores(1000)]))
    (record,) = load_proposals_into_dataset([{"image_id": "a"}], str(tmp_path / "p.pkl"))
    np.testing.assert_array_equal(record["proposal_boxes"], boxes)


@pytest.mark.parametrize("protocol", [2, 4])
def test_reads_detectron_one_and_other_modes(tmp_path, protocol):
    old = {"indexes": [3], "boxes": [BOXES.astype(np.float64)], "scores": [np.array([1.0, 2.0])]}
    read = read_proposals(pickled(tmp_path, {**old, "cfg": "text"}, protocol))
    assert read.ids == [3] and read.boxes[0].dtype == np.float32
    np.testing.assert_array_equal(read.scores[0], [1, 2])
    sizes = content(bbox_mode=BoxMode.XYWH_ABS)
    read = read_proposals(pickled(tmp_path, sizes, protocol))
    np.testing.assert_array_equal(read.boxes[0], [[0, 0, 10, 20], [5, 5, 11.5, 12]])


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([1], ["list"]),
        (content(ids=np.array(5)), ["ids, boxes or scores that are no list"]),
        (content(more=os.mkdir), ["it holds a", "mkdir"]),  # tests/hostile_weights.py would run it
        ({"ids": [], "boxes": []}, ["ids, boxes", "objectness_logits"]),
        (content(ids=["a", "b"]), ["2 ids", "1 arrays of boxes"]),
        (content(objectness_logits=[np.array([1.0, np.nan])]), ["'a'", "score 1", "nan"]),
        (content(objectness_logits=[np.array([1.0])]), ["'a'", "2 boxes", "1 scores"]),
        (content(boxes=[np.array([[0, 0, np.inf, 1.0]] * 2)]), ["'a'", "box 0", "inf"]),
        (content(boxes=[BOXES[:, [2, 1, 0, 3]]]), ["'a'", "box 0", "[10.0, 0.0, 0.0, 20.0]"]),
        (content(boxes=[np.zeros((2, 5))]), ["'a'", "(2, 5)"]),
        (content(boxes=[[["x"] * 4] * 2]), ["'a'", "(N, 4)"]),
        (content(bbox_mode=99), ["'a'", "99"]),
        (content(bbox_mode=BoxMode.XYWHA_ABS), ["'a'", "bbox_mode"]),
        ({key: value * 2 for key, value in content().items()}, ["'a'", "once"]),
    ],
)
def test_faults_are_told_with_file_and_image(tmp_path, value, words):
    with refused("p.pkl", *words):
        read_proposals(pickled(tmp_path, value))


@pytest.mark.parametrize("data", [b"", b"no pickle", pickle.dumps(content())[:-20], None])
def test_damaged_and_missing_files(tmp_path, data):
    path = tmp_path / "p.pkl"
    if data is not None:
        path.write_bytes(data)
    with refused("p.pkl"):
        read_proposals(path)


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "p.pkl"
    write_proposals(path, Proposals(["a"], [BOXES], [[1, 2]]))
    before = path.read_bytes()
    (tmp_path / "p.pkl.tmp").mkdir()  # in the way of the temporary file
    with refused("p.pkl", "written"):
        write_proposals(path, Proposals(["b"], [BOXES], [[1, 2]]))
    assert path.read_bytes() == before
