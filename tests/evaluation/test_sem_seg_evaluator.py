"""Mean IoU against a pixel-by-pixel count and values found by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from box_helpers import register_dicts, run
from detectron2.evaluation import print_csv_format
from detectron2.utils import comm
from voc_folder import write_label

from ion_d2.errors import IONError
from ion_d2.evaluation import IONSemSegEvaluator
from ion_d2.evaluation.sem_seg_evaluator import confusion_matrix, scores_from_confusion

pytestmark = pytest.mark.usefixtures("catalogs")

STUFF = ["background", "cat", "dog", "cow"]


def scores_for(ids, num_classes=4):
    """Noisy (num_classes, H, W) scores whose greatest entry is at the wanted class."""
    noise = torch.rand((num_classes, *np.shape(ids)), generator=torch.Generator().manual_seed(0))
    wanted = torch.nn.functional.one_hot(torch.as_tensor(np.asarray(ids)).long(), num_classes)
    return {"sem_seg": noise + 2 * wanted.permute(2, 0, 1)}


def registered(records):
    return register_dicts("mine", records, stuff_classes=STUFF)


def labeled(folder, **maps):
    """Image id -> its label map, as registered dicts."""
    for name, ids in maps.items():
        write_label(folder / f"{name}.png", ids)
    return [{"image_id": n, "sem_seg_file_name": str(folder / f"{n}.png")} for n in maps]


def test_hand_worked_case(tmp_path, capsys):
    records = [*labeled(tmp_path, one=[[0, 0, 1], [255, 1, 1]]), {"image_id": "no label"}]
    evaluator = IONSemSegEvaluator(registered(records), 4, output_dir=str(tmp_path / "out"))
    # Background: 1 of 2 right; cat: 2 of 3 right; one of each is called dog or cat; void: ignored.
    outputs = [scores_for([[0, 1, 1], [3, 1, 2]]), scores_for([[2, 2, 2]])]
    results = run(evaluator, records, outputs)
    figures = results["sem_seg"]
    expected = {
        "mIoU": 100 * (1 / 2 + 2 / 4 + 0) / 3,
        "pACC": 100 * 3 / 5,
        "IoU-background": 50,
        "IoU-cat": 50,
        "IoU-dog": 0,  # called, but not there
        "IoU-cow": np.nan,  # neither called (but on the void pixel) nor there
    }
    assert list(figures) == list(expected)
    assert figures == pytest.approx(expected, nan_ok=True)
    report = json.loads((tmp_path / "out/sem_seg_results.json").read_text())
    assert report["dataset"] == "mine" and report["num_images"] == 1
    assert report["mIoU"] == pytest.approx(expected["mIoU"]) and report["IoU"]["cow"] is None
    print_csv_format(results)
    assert capsys.readouterr().out == ""


def test_equals_counting_pixel_by_pixel(tmp_path):
    rng = np.random.default_rng(5)
    records, outputs, pairs = [], [], []
    for name in "abcd":
        shape = tuple(rng.integers(5, 12, size=2))
        truth = rng.choice([0, 1, 2, 255], size=shape)
        predicted = rng.integers(0, 4, size=shape)
        records += labeled(tmp_path, **{name: truth})
        outputs.append(scores_for(predicted))
        pairs += [(t, p) for t, p in zip(truth.flat, predicted.flat) if t != 255]
    figures = run(IONSemSegEvaluator(registered(records), 4), records, outputs)["sem_seg"]
    iou = []
    for c, name in enumerate(STUFF):
        both = sum(t == c and p == c for t, p in pairs)
        either = sum(t == c or p == c for t, p in pairs)
        iou.append(100 * both / either)
        assert figures[f"IoU-{name}"] == pytest.approx(iou[-1])
    assert figures["mIoU"] == pytest.approx(np.mean(iou))
    assert figures["pACC"] == pytest.approx(100 * np.mean([t == p for t, p in pairs]))


def test_confusion_has_truth_in_rows():
    confusion = confusion_matrix(np.array([[0, 1, 9]]), np.array([[2, 1, 0]]), 3, 9)
    assert confusion.tolist() == [[0, 0, 1], [0, 1, 0], [0, 0, 0]]
    mean, accuracy, iou = scores_from_confusion(np.zeros((2, 2), dtype=int))
    assert np.isnan([mean, accuracy, *iou]).all()


def test_an_image_counts_once_and_none_is_forgotten(tmp_path):
    records = labeled(tmp_path, a=[[0, 1]], b=[[0, 1]])
    right, wrong = scores_for([[0, 1]]), scores_for([[1, 0]])
    evaluator = IONSemSegEvaluator(registered(records), 4)
    twice = run(evaluator, [records[0], records[1], records[1]], [right, wrong, wrong])
    assert twice["sem_seg"]["pACC"] == 50
    with pytest.raises(IONError, match='1 of 2 images.*"b"'):
        run(evaluator, records[:1], [right])
    chosen = IONSemSegEvaluator("mine", 4, records=records[:1])
    assert run(chosen, records[:1], [right])["sem_seg"]["mIoU"] == 100


def test_ranks_are_added_up(tmp_path, monkeypatch):
    records = labeled(tmp_path, a=[[0, 1]], b=[[0, 1]])
    ranks = [IONSemSegEvaluator(registered(records), 4) for _ in range(2)]
    sent = []
    monkeypatch.setattr(comm, "gather", lambda data, dst: sent.append(data) or [])
    assert run(ranks[1], records[1:], [scores_for([[1, 1]])]) == {}
    monkeypatch.setattr(comm, "gather", lambda data, dst: [data, *sent])
    figures = run(ranks[0], records[:1], [scores_for([[0, 1]])])["sem_seg"]
    assert figures["pACC"] == 75
    assert figures["mIoU"] == pytest.approx(100 * (1 / 2 + 2 / 3) / 2)


def test_bad_input_is_named(tmp_path):
    (record,) = labeled(tmp_path, a=[[0, 1]])
    evaluator = IONSemSegEvaluator(registered([record]), 4)
    with pytest.raises(IONError, match="a.png"):
        evaluator.process([record], [scores_for([[0, 1, 0]])])
    with pytest.raises(IONError, match="NUM_CLASSES"):
        evaluator.process([record], [scores_for([[0, 1]], num_classes=5)])
    with pytest.raises(IONError, match="MODEL.SEM_SEG_HEAD.NUM_CLASSES"):
        IONSemSegEvaluator("mine", 3)
    write_label(tmp_path / "b.png", [[0, 7]])
    with pytest.raises(IONError, match="b.png"):  # before the training
        IONSemSegEvaluator(
            "mine", 4, records=[{**record, "sem_seg_file_name": f"{tmp_path}/b.png"}]
        )
    with pytest.raises(IONError, match="no image of mine has a label map"):
        IONSemSegEvaluator("mine", 4, records=[{"image_id": "a"}])
