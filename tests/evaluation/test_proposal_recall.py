"""Recall of proposals: by hand, by an assignment search, and against Detectron2's evaluation."""

import numpy as np
import pytest
import torch
from detectron2.evaluation.coco_evaluation import _evaluate_box_proposals
from detectron2.structures import Boxes, BoxMode, Instances, pairwise_iou

from ion_d2.evaluation import evaluate_proposals
from ion_d2.evaluation.tables import recall_table


def record(objects, proposals, **flags):
    fields = {"bbox_mode": BoxMode.XYXY_ABS, "category_id": 0, **flags}
    annotations = [{"bbox": b, **fields} for b in objects]
    return {
        "annotations": annotations,
        "proposal_boxes": np.array(proposals, dtype=np.float32).reshape(-1, 4),
        "proposal_bbox_mode": BoxMode.XYXY_ABS,
    }


def random_records(number=20, seed=0):
    rng = np.random.default_rng(seed)

    def boxes(n):
        corners = rng.uniform(0, 60, (n, 4))
        return np.concatenate([corners[:, :2], corners[:, :2] + 8 + corners[:, 2:] / 2], axis=1)

    return [record(boxes(rng.integers(0, 7)).tolist(), boxes(300)) for _ in range(number)]


def test_by_hand():
    # Overlaps with the object: 0.5 exactly (half of it), 0.7 exactly (7 of 10 columns), 1.
    objects = [[0, 0, 10, 10]]
    half, most = [0, 0, 10, 5], [0, 0, 7, 10]
    dicts = [record(objects, [half, most]), record(objects, [half]), record(objects, [objects[0]])]
    result = evaluate_proposals([*dicts, record(objects, [])], limits=(1, 2))
    assert (result.num_objects, result.num_images) == (4, 4)
    np.testing.assert_allclose(result.at(0.5), [3 / 4, 3 / 4])
    np.testing.assert_allclose(result.at(0.7), [1 / 4, 2 / 4])
    # Thresholds that each object passes: 1 or 5, 1, 10, 0 of 10.
    np.testing.assert_allclose(result.average, [12 / 40, 16 / 40])
    np.testing.assert_allclose(result.mean_number, [3 / 4, 1])


def test_a_proposal_covers_one_object():
    twins = [[0, 0, 10, 10], [0, 0, 10, 9]]
    result = evaluate_proposals([record(twins, [[0, 0, 10, 10], [50, 50, 60, 60]])], limits=(10,))
    assert result.at(0.5) == [0.5]


def test_crowds_and_difficult_objects_do_not_count():
    objects = [[0, 0, 10, 10]]
    for flag in ("iscrowd", "difficult"):
        result = evaluate_proposals([record(objects, objects, **{flag: 1})], limits=(10,))
        assert result.num_objects == 0 and np.isnan(result.recall).all()
    assert "-" in recall_table(result)


class Coco:
    """As much of COCO's API as Detectron2's evaluation asks for."""

    def __init__(self, dicts):
        self.dicts = dicts

    def getAnnIds(self, imgIds):
        return imgIds

    def loadAnns(self, image):
        to_xywh = (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)
        boxes = [BoxMode.convert(a["bbox"], *to_xywh) for a in self.dicts[image]["annotations"]]
        return [{"bbox": list(b), "area": b[2] * b[3], "iscrowd": 0} for b in boxes]


@pytest.mark.parametrize("limit", [10, 100, 300])
def test_equals_detectron2s_evaluation(limit):
    dicts = random_records()
    predictions = []
    for i, entry in enumerate(dicts):
        instances = Instances((100, 100), proposal_boxes=Boxes(entry["proposal_boxes"]))
        instances.objectness_logits = -torch.arange(len(instances), dtype=torch.float32)
        predictions.append({"image_id": i, "proposals": instances})
    theirs = _evaluate_box_proposals(predictions, Coco(dicts), limit=limit)
    ours = evaluate_proposals(dicts, limits=(limit,))
    assert ours.num_objects == theirs["num_pos"] > 40
    np.testing.assert_allclose(ours.recall[0], theirs["recalls"], atol=1e-6)
    np.testing.assert_allclose(ours.average[0], theirs["ar"], atol=1e-6)
    assert 0 < ours.average[0] < 1


def test_with_ample_proposals_it_is_the_share_of_objects_with_an_overlap():
    """Where no two objects compete for a proposal, each object's best overlap decides."""
    objects = [[0, 0, 20, 20], [100, 0, 120, 20], [0, 100, 20, 120]]
    rng = np.random.default_rng(3)
    near = np.concatenate([np.array(o) + rng.uniform(-6, 6, (9, 4)) for o in objects])
    result = evaluate_proposals([record(objects, near)], limits=(1000,))
    best = pairwise_iou(Boxes(torch.tensor(near)), Boxes(torch.tensor(objects).double())).max(0)[0]
    expected = [(best >= t).double().mean().item() for t in result.thresholds]
    np.testing.assert_allclose(result.recall[0], expected)


def test_table():
    lines = recall_table(evaluate_proposals(random_records(3))).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["100", "300", "1000", "2000"]
    assert "300.0" in lines[5]
