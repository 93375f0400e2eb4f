"""Proposals are matched by image id, in order, and faults name file, image and dataset."""

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.build import load_proposals_into_dataset
from detectron2.structures import BoxMode
from model_helpers import small_config
from refusals import refused

from ion_d2.data.proposals import (
    Proposals,
    add_proposals,
    check_proposals,
    get_dicts,
    match_proposals,
    proposal_files,
    write_proposals,
)

RNG = np.random.default_rng(0)


def records(*ids, size=(40, 30)):
    return [{"image_id": i, "width": size[0], "height": size[1]} for i in ids]


def some(ids, number=5, **kwargs):
    corners = RNG.uniform(0, 15, (len(ids), number, 4)).astype(np.float32)
    corners[..., 2:] += corners[..., :2]
    scores = RNG.permutation(len(ids) * number).reshape(len(ids), number)
    return Proposals(list(ids), list(corners), list(scores), **kwargs)


def test_equals_detectron2s_own_loader(tmp_path):
    proposals = some(["7", 12, "c", "unused"])
    write_proposals(tmp_path / "p.pkl", proposals)
    dicts = records("c", 7, "12")
    ours = add_proposals(dicts, proposals, "set")
    assert "proposal_boxes" not in dicts[0]
    theirs = load_proposals_into_dataset(records("c", 7, "12"), str(tmp_path / "p.pkl"))
    for a, b in zip(ours, theirs):
        assert a.keys() == b.keys() and a["proposal_bbox_mode"] == BoxMode.XYXY_ABS
        np.testing.assert_array_equal(a["proposal_boxes"], b["proposal_boxes"])
        key = "proposal_objectness_logits"
        np.testing.assert_array_equal(a[key], b[key])
        assert (np.diff(a[key]) < 0).all()


def test_equal_scores_keep_their_order():
    boxes = np.sort(RNG.uniform(0, 30, (200, 4)), axis=1)[:, [0, 1, 2, 3]]
    proposals = Proposals(["a"], [boxes], [np.zeros(200)])
    (record,) = add_proposals(records("a"), proposals, "set")
    np.testing.assert_array_equal(record["proposal_boxes"], boxes.astype(np.float32))


@pytest.mark.parametrize(
    ("ids", "words"),
    [("ac", ["misses 1 of the 3", "'set'", "'b'"]), ("xy", ["another", "'x'", "'set'", "'a'"])],
)
def test_missing_images_are_told(ids, words):
    with refused("p.pkl", *words):
        match_proposals(some(ids, source="p.pkl"), records("a", "b", "c"), "set")


@pytest.mark.parametrize("box", [[0, 0, 42, 10], [0, 0, 10, 32], [-2, 0, 5, 5], [0, -1.5, 5, 5]])
def test_boxes_outside_the_picture_are_told(box):
    proposals = Proposals(["a", "b"], [[[0, 0, 41, 31]], [[1, 1, 2, 2], box]], [[1], [1, 0]], "p")
    with refused("file p, image 'b'", "outside the picture", "40x30", "order of the coordinates"):
        match_proposals(proposals, records("a", "b"), "set")


def test_a_dict_without_a_size_is_not_checked():
    proposals = Proposals(["a"], [[[0, 0, 4100, 31]]], [[1]])
    assert match_proposals(proposals, [{"image_id": "a"}], "set") == [0]


@pytest.mark.usefixtures("catalogs")
def test_each_dataset_gets_the_boxes_of_its_own_file(tmp_path):
    """Also where two datasets call different images by the same id."""
    names, files = ("proposals_one", "proposals_two"), []
    for name in names:
        dicts = records("1", "2", "3")
        for record in dicts[:2]:
            record["annotations"] = [{"category_id": 0, "iscrowd": 0}]
        dicts[2]["annotations"] = []
        DatasetCatalog.register(name, lambda dicts=dicts: dicts)
        MetadataCatalog.get(name).set(thing_classes=["cat"])
        files.append(str(tmp_path / f"{name}.pkl"))
    sets = [some(["1", "2", "3"]), some(["2", "1"])]
    for path, proposals in zip(files, sets):
        write_proposals(path, proposals)
    dicts = get_dicts(names, filter_empty=True, proposal_files=files)
    with refused("proposals_two.pkl", "misses 1", "'proposals_two'", "'3'"):
        get_dicts(names, filter_empty=False, proposal_files=files)
    assert [d["image_id"] for d in dicts] == ["1", "2", "1", "2"]
    expected = [(sets[0], 0), (sets[0], 1), (sets[1], 1), (sets[1], 0)]
    for record, (proposals, i) in zip(dicts, expected):
        best = proposals.boxes[i][proposals.scores[i].argmax()]
        np.testing.assert_array_equal(record["proposal_boxes"][0], best)


def test_files_go_with_datasets(tmp_path):
    path = tmp_path / "p.pkl"
    path.touch()
    assert proposal_files(small_config(), "TRAIN") is None
    named = ["MODEL.LOAD_PROPOSALS", True, "DATASETS.TRAIN", "('a',)"]
    named += ["DATASETS.PROPOSAL_FILES_TRAIN", f"('{path}',)"]
    assert proposal_files(small_config(*named), "TRAIN") == (str(path),)
    with refused("PROPOSAL_FILES_TRAIN names 1", "TRAIN has 2"):
        proposal_files(small_config(*named, "DATASETS.TRAIN", "('a', 'b')"), "TRAIN")


@pytest.mark.parametrize("named", [(), ("TRAIN",), ("TRAIN", "TEST")])
def test_files_that_are_not_loaded_are_told(named, caplog):
    opts = [x for split in named for x in (f"DATASETS.PROPOSAL_FILES_{split}", "('gone.pkl',)")]
    check_proposals(small_config(*opts), train=True)
    keys = " and ".join(f"PROPOSAL_FILES_{split}" for split in named)
    told = f"DATASETS.{keys} names files that are not read: MODEL.LOAD_PROPOSALS is False."
    assert caplog.messages == [told][: len(named)]


@pytest.mark.usefixtures("catalogs")
def test_one_of_several_datasets_may_have_no_objects(tmp_path):
    """What is trained on are all of them; the file need not name the images that are left out."""
    annotations = {"one": [{"iscrowd": 0}], "none": [], "crowd": [{"iscrowd": 1}]}
    names, files = [], []
    for name, found in annotations.items():
        record = {**records("1")[0], "annotations": found}
        DatasetCatalog.register(f"objects_{name}", lambda record=record: [record])
        names.append(f"objects_{name}")
        files.append(str(tmp_path / f"{name}.pkl"))
        write_proposals(files[-1], some(["1"] if name == "one" else []))
    (record,) = get_dicts(names, filter_empty=True, proposal_files=files)
    assert len(record["proposal_boxes"]) == 5 and record["annotations"] == [{"iscrowd": 0}]
    with pytest.raises(AssertionError, match="No valid data found in objects_none,objects_crowd"):
        get_dicts(names[1:], filter_empty=True, proposal_files=files[1:])
