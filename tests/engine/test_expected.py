"""Expected results that the evaluation cannot give are told in one sentence."""

import pytest
from model_helpers import small_config

from ion_d2.engine.expected import check_expected, verify
from ion_d2.errors import IONError

FOUND = {"bbox": {"AP": 50.0}, "bbox_coco": {"AP": 40.0}}


def config(task, tests="('a',)"):
    expected = f"[['{task}', 'AP', 50.0, 0.1]]"
    return small_config("TEST.EXPECTED_RESULTS", expected, "DATASETS.TEST", tests)


def test_figures_are_compared():
    verify(config("bbox"), FOUND)
    with pytest.raises(SystemExit) as stop:
        verify(config("bbox_coco"), FOUND)
    assert stop.value.code == 1


def test_what_is_not_there_is_told():
    with pytest.raises(IONError, match="task 'segm'.*choose one of bbox, bbox_coco"):
        verify(config("segm"), FOUND)
    for tests in ("('a', 'b')", "()"):
        with pytest.raises(IONError, match="DATASETS.TEST names [02]"):
            check_expected(config("bbox", tests))
