"""What is wrong with a study is told before it trains anything."""

from __future__ import annotations

import pytest
from study_helpers import CONV5, SKIP, make_study

from ion_d2.errors import IONError
from ion_lab.study import row_models, run_study

pytestmark = pytest.mark.slow


def test_a_wrong_override_stops_the_study_before_it_trains(tmp_path):
    changes = {"rows": {"conv5": CONV5, "bad": {"MODEL.CONTEXT.NAMES": "x"}}}
    with pytest.raises(IONError, match="^The row 'bad' of the table small.*MODEL.CONTEXT.NAMES"):
        run_study(make_study(tmp_path, changes=changes))
    assert not list((tmp_path / "out").glob("runs/*/run.json"))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"MODEL.VGG.DEPTH": 12}, "bad, scenes: MODEL.VGG.DEPTH is 12"),
        ({"MODEL.ROI_HEADS.IN_FEATURES": ["conv9"]}, "bad, scenes: MODEL.ROI_HEADS.IN_FEATURES"),
        ({"MODEL.ROI_HEADS.NUM_CLASSES": 7}, "bad, scenes: MODEL.ROI_HEADS.NUM_CLASSES is 7"),
        ({"TEST.VOC_METRIC": "mean"}, "bad, scenes: .*TEST.VOC_METRIC"),
        ({"MODEL.SEG_REGULARIZER_ON": True}, "bad, scenes: MODEL.SEM_SEG_HEAD.IN_FEATURES"),
    ],
)
def test_a_wrong_value_stops_the_study_before_it_trains(tmp_path, bad, message):
    changes = {"rows": {"conv5": CONV5, "bad": {**SKIP, **bad}}}
    with pytest.raises(IONError, match=message):
        run_study(make_study(tmp_path, changes=changes))
    assert not list((tmp_path / "out").glob("runs/*/run.json"))


def test_a_wrong_value_of_a_start_stops_the_study_before_it_trains(tmp_path):
    starts = {"before": {"row": "conv5", "keys": {"MODEL.VGG.DEPTH": 12}}}
    with pytest.raises(IONError, match="^conv5, scenes before: MODEL.VGG.DEPTH is 12"):
        run_study(make_study(tmp_path, changes={"starts": starts, "start": "before"}))


def test_models_are_built_once_a_row_and_not_of_finished_runs(tmp_path, monkeypatch):
    built = []
    monkeypatch.setattr(row_models, "build_model", lambda cfg: built.append(cfg))
    assert run_study(make_study(tmp_path)) == []
    assert [cfg.MODEL.ROI_HEADS.NUM_CLASSES for cfg in built] == [2, 2]
    assert run_study(make_study(tmp_path)) == [] and len(built) == 2


def test_a_key_that_is_no_text_is_told_as_an_unknown_one(tmp_path):
    with pytest.raises(IONError, match="config key 1"):
        run_study(make_study(tmp_path, changes={"keys": {1: 2}}))


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(IONError, match="choose another --out"):
        run_study(make_study(tmp_path))


@pytest.mark.parametrize("place", ["small", "scenes"])
def test_a_file_in_the_place_of_a_folder_is_named_before_anything_is_trained(tmp_path, place):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / place).write_text("a file")
    with pytest.raises(IONError, match=f"out/{place} cannot be made.*choose another --out"):
        run_study(make_study(tmp_path))
    assert not list((tmp_path / "out").glob("runs/*/run.json"))


def test_a_row_of_a_long_name_has_a_folder(tmp_path):
    run_study(
        make_study(tmp_path, seeds=(0,), changes={"rows": {"x" * 300: CONV5}, "baseline": ""})
    )
    (note,) = (tmp_path / "out/runs").glob("*/run.json")
    assert len(note.parent.name) == 240


def test_a_broken_note_is_named(tmp_path):
    study = make_study(tmp_path, seeds=(0,))
    run_study(study)
    (study.out / "runs" / "conv5-scenes-seed-0" / "run.json").write_text("{")
    with pytest.raises(IONError, match="run.json"):
        run_study(make_study(tmp_path, seeds=(0,)))
