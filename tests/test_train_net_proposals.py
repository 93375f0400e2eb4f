"""train_net.py with precomputed proposals: from the files to the figures, and their faults."""

import json

import numpy as np
import pytest
from cli_helpers import arguments, output_of, says, voc_arguments
from coco_json import BLUE, RED, write_coco
from detectron2.data import DatasetCatalog
from detectron2.structures import BoxMode

from ion_d2.data.catalog import ensure_registered
from ion_d2.data.proposals import Proposals, write_proposals

FAST_RCNN = "MODEL.LOAD_PROPOSALS True MODEL.PROPOSAL_GENERATOR.NAME PrecomputedProposals".split()


def dicts_of(name):
    ensure_registered([name])
    return DatasetCatalog.get(name)


def near_objects(dicts):
    """Proposals that shake each object of an image, and some anywhere."""
    rng = np.random.default_rng(0)
    boxes = []
    for record in dicts:
        corners = rng.uniform(0, min(record["width"], record["height"]), (30, 4))
        anywhere = np.sort(corners.reshape(-1, 2, 2), axis=1).reshape(-1, 4)
        objects = [
            BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS)
            for a in record["annotations"]
        ] * 5
        shaken = np.array(objects).reshape(-1, 4) + rng.uniform(-3, 3, (len(objects), 4))
        limits = [record["width"], record["height"]] * 2
        boxes.append(np.clip(np.concatenate([shaken, anywhere]), 0, limits))
    scores = [rng.random(len(b)) for b in boxes]
    return Proposals([record["image_id"] for record in dicts], boxes, scores)


@pytest.fixture
def files(scenes, tmp_path):
    """Proposal files of the scenes, and the overrides that name them."""
    opts = list(FAST_RCNN)
    for split, key in (("trainval", "TRAIN"), ("test", "TEST")):
        path = tmp_path / f"{split}.pkl"
        write_proposals(path, near_objects(dicts_of(f"voc:{scenes}:{split}")))
        opts += [f"DATASETS.PROPOSAL_FILES_{key}", f"('{path}',)"]
    return opts


def test_trains_and_evaluates_on_a_voc_folder(train_net, scenes, files, tmp_path):
    out = tmp_path / "out"
    opts = [*files, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0, "TEST.DETECTIONS_PER_IMAGE", 10]
    output_of(train_net(*voc_arguments(scenes, out, *opts, "DATALOADER.NUM_WORKERS", 1)))
    metrics = [json.loads(line) for line in (out / "metrics.json").read_text().splitlines()]
    assert any("loss_box_reg" in m for m in metrics)
    assert not any("loss_rpn_cls" in m for m in metrics)
    # Most samples of the step are positive: the boxes near the objects are those sampled.
    assert max(m.get("roi_head/num_fg_samples", 0) for m in metrics) > 8
    assert len(json.loads((out / "detections.json").read_text())) == 30
    opts += ["MODEL.WEIGHTS", out / "model_final.pth", "DATASETS.PROPOSAL_FILES_TRAIN", "()"]
    again = tmp_path / "again"
    assert train_net(*voc_arguments(scenes, again, *opts, flags=["--eval-only"]))[0] == 0
    assert (again / "detections.json").read_bytes() == (out / "detections.json").read_bytes()


def test_trains_and_evaluates_on_a_coco_file(train_net, tmp_path):
    coco = write_coco(tmp_path, *([(kind, 8, 10, 30, None)] for kind in (RED, BLUE)))
    proposals = near_objects(dicts_of(coco))
    proposals.ids = [str(image_id) for image_id in proposals.ids]  # as they come from a CSV file
    write_proposals(tmp_path / "p.pkl", proposals)
    named = f"('{tmp_path / 'p.pkl'}',)"
    opts = ["DATASETS.PROPOSAL_FILES_TRAIN", named, "DATASETS.PROPOSAL_FILES_TEST", named]
    output_of(train_net(*arguments(coco, coco, tmp_path / "out", *FAST_RCNN, *opts)))


def test_faults_are_told_before_the_training(train_net, scenes, files, tmp_path):
    out, train = tmp_path / "out", tmp_path / "trainval.pkl"

    def run(*opts):
        return train_net(*voc_arguments(scenes, out, *files, *opts))

    dicts = dicts_of(f"voc:{scenes}:test")
    # The file of the training is not that of the test.
    swapped = ["DATASETS.PROPOSAL_FILES_TEST", f"('{train}',)"]
    assert says(run(*swapped), "trainval.pkl belongs to another image set", ":test")
    boxes, test = near_objects(dicts), tmp_path / "test.pkl"
    write_proposals(test, Proposals(boxes.ids[1:], boxes.boxes[1:], boxes.scores[1:]))
    assert says(run(), "test.pkl misses 1 of the 3 images", boxes.ids[0])
    boxes.boxes[1] = boxes.boxes[1] + 500
    write_proposals(test, boxes)
    assert says(run(), "test.pkl", boxes.ids[1], "outside the picture")
    boxes.scores[1][3] = np.nan
    write_proposals(test, boxes)
    assert says(run(), "test.pkl", boxes.ids[1], "score 3 is nan")
    assert says(run("DATASETS.PROPOSAL_FILES_TEST", "()"), "PROPOSAL_FILES_TEST names 0 files")
    gone = f"('{tmp_path / 'gone.pkl'}',)"
    assert says(run("DATASETS.PROPOSAL_FILES_TRAIN", gone), "gone.pkl does not exist")
    assert says(run("MODEL.LOAD_PROPOSALS", "False"), "PrecomputedProposals", "LOAD_PROPOSALS")
    assert not list(tmp_path.glob("out/*.pth"))
