"""The config of a training outlives later evaluations in its folder."""

import os
import time

import pytest

from ion_d2.engine.run_folder import writing_config


def write(folder, text, evaluate, fail=False):
    with writing_config(str(folder), evaluate=evaluate):
        (folder / "config.yaml").write_text(text)
        if fail:
            raise OSError("disk full")


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir() if path.suffix != ".lock"}


def test_an_evaluation_writes_beside_the_config_of_the_training(tmp_path):
    write(tmp_path, "first training", evaluate=False)
    write(tmp_path, "first test", evaluate=True)
    write(tmp_path, "second test", evaluate=True)
    expected = {"config.yaml": "first training", "config_eval.yaml": "second test"}
    assert contents(tmp_path) == expected
    write(tmp_path, "second training", evaluate=False)
    assert contents(tmp_path) == {"config.yaml": "second training"}


def test_alone_it_is_the_config(tmp_path):
    write(tmp_path, "a test", evaluate=True)
    assert contents(tmp_path) == {"config.yaml": "a test"}


def test_a_failure_loses_nothing(tmp_path):
    write(tmp_path, "training", evaluate=False)
    with pytest.raises(OSError, match="disk full"):
        write(tmp_path, "", evaluate=True, fail=True)
    assert contents(tmp_path) == {"config.yaml": "training"}


def test_a_training_that_cannot_write_its_config_leaves_no_half_and_the_old_one(tmp_path):
    for before in ({}, {"config.yaml": "old"}):
        with pytest.raises(OSError, match="disk full"):
            write(tmp_path, "half", evaluate=False, fail=True)
        assert contents(tmp_path) == before
        write(tmp_path, "old", evaluate=False)


def test_an_evaluation_that_was_killed_at_its_start_loses_nothing(tmp_path):
    (tmp_path / "config.yaml.aside").write_text("training")
    (tmp_path / "config.yaml").write_text("ha")  # of the evaluation's
    write(tmp_path, "test", evaluate=True)
    assert contents(tmp_path) == {"config.yaml": "training", "config_eval.yaml": "test"}


def test_two_evaluations_at_once_wait_for_each_other(tmp_path):
    write(tmp_path, "training", evaluate=False)
    reader, writer = os.pipe()
    if not (first := os.fork()):
        with writing_config(str(tmp_path), evaluate=True):
            (tmp_path / "config.yaml").write_text("first test")
            os.write(writer, b"inside")
            time.sleep(0.3)
        os._exit(0)
    os.read(reader, 6)
    write(tmp_path, "second test", evaluate=True)
    os.waitpid(first, 0)
    assert contents(tmp_path) == {"config.yaml": "training", "config_eval.yaml": "second test"}
