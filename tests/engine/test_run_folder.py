"""The config in a run's folder is that of what the folder holds."""

import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from detectron2.config import CfgNode

from ion_d2.engine.run_folder import config_stays, write_config


def write(folder, text, evaluated):
    """The config of a run that has come so far."""
    with config_stays(str(folder)):
        (folder / "config.yaml").write_text("Detectron2's")
    write_config(CfgNode({"OUTPUT_DIR": str(folder), "NAME": text}), evaluated=evaluated)


def contents(folder):
    files = [path for path in folder.iterdir() if path.suffix != ".lock"]
    return {path.name: path.read_text().splitlines()[0].partition(": ")[2] for path in files}


def test_an_evaluation_writes_beside_the_config_of_the_training(tmp_path):
    write(tmp_path, "training", evaluated=False)
    for text in ("first", "second"):
        write(tmp_path, text, evaluated=True)
        assert contents(tmp_path) == {"config.yaml": "training", "config_eval.yaml": text}
    write(tmp_path, "another", evaluated=False)
    assert contents(tmp_path) == {"config.yaml": "another"}


def test_alone_it_is_the_config(tmp_path):
    write(tmp_path, "a test", evaluated=True)
    assert contents(tmp_path) == {"config.yaml": "a test"}


@pytest.mark.parametrize("before", [{}, {"config.yaml": "training", "config_eval.yaml": "test"}])
@pytest.mark.parametrize("error", [None, OSError("disk full")])
def test_a_run_that_has_done_nothing_changes_nothing(tmp_path, before, error):
    for name, text in before.items():
        write(tmp_path, text, evaluated="eval" in name)
    try:
        with config_stays(str(tmp_path)):
            (tmp_path / "config.yaml").write_text("half")
            if error:
                raise error
    except OSError as told:
        assert told is error
    assert contents(tmp_path) == before


def test_a_program_that_was_killed_at_its_start_loses_nothing(tmp_path):
    (tmp_path / "config.yaml.aside").write_text("NAME: training")
    (tmp_path / "config.yaml").write_text("ha")  # of the killed one
    write(tmp_path, "test", evaluated=True)
    assert contents(tmp_path) == {"config.yaml": "training", "config_eval.yaml": "test"}


@pytest.mark.parametrize("before", [[], ["old training"]])
def test_a_training_that_begins_while_an_evaluation_starts_keeps_its_config(tmp_path, before):
    for text in before:
        write(tmp_path, text, evaluated=False)
    with ThreadPoolExecutor(1) as pool:
        with config_stays(str(tmp_path)):
            config = CfgNode({"OUTPUT_DIR": str(tmp_path), "NAME": "training"})
            begun = pool.submit(write_config, config, evaluated=False)
            time.sleep(0.2)
        begun.result()
    assert contents(tmp_path) == {"config.yaml": "training"}


def test_two_programs_at_once_wait_for_each_other(tmp_path):
    write(tmp_path, "training", evaluated=False)
    reader, writer = os.pipe()
    if not (first := os.fork()):
        with config_stays(str(tmp_path)):
            (tmp_path / "config.yaml").write_text("first test")
            os.write(writer, b"inside")
            time.sleep(0.3)
        os._exit(0)
    os.read(reader, 6)
    write(tmp_path, "second test", evaluated=True)
    os.waitpid(first, 0)
    assert contents(tmp_path) == {"config.yaml": "training", "config_eval.yaml": "second test"}
