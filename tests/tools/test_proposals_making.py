"""Generation in parallel: the same whatever the number of workers, and after any stop."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import proposers
import pytest
from detectron2.data import DatasetCatalog
from proposals_making import Job, generate_proposals
from voc_folder import write_voc

from ion_d2.data.catalog import ensure_registered
from ion_d2.data.proposals import add_proposals, read_proposals
from ion_d2.data.readable import read_image
from ion_d2.errors import IONError

pytestmark = pytest.mark.slow

IDS = ["a", "b c", "ü", "d.e", "f", "g", "h", "猫" * 83]
SETTINGS = {"method": "stand-in", "max_boxes": 4}


@pytest.fixture(scope="module")
def dicts(tmp_path_factory):
    root = write_voc(tmp_path_factory.mktemp("voc"), {image_id: [] for image_id in IDS})
    (root / "classes.txt").write_text("cat\n")
    name = f"voc:{root}:train"
    ensure_registered([name])
    return DatasetCatalog.get(name)


def make(dicts, output, build=proposers.by_brightness, workers=2, settings=SETTINGS, **kwargs):
    job = Job(build, settings["max_boxes"], settings, **kwargs)
    return generate_proposals(dicts, job, str(output), num_workers=workers)


def test_any_number_of_workers_makes_the_same_file(dicts, tmp_path):
    make(dicts, tmp_path / "1.pkl", workers=1)
    made = make(dicts, tmp_path / "3.pkl", workers=3)
    assert (tmp_path / "1.pkl").read_bytes() == (tmp_path / "3.pkl").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["1.pkl", "3.pkl"]
    assert made.ids == IDS
    read = read_proposals(tmp_path / "1.pkl")
    for record, boxes, scores in zip(dicts, read.boxes, read.scores):
        all_boxes, all_scores = proposers.by_brightness()(read_image(record["file_name"], "BGR"))
        best = np.argsort(-all_scores, kind="stable")[:4]
        np.testing.assert_array_equal(boxes, all_boxes[best])
        np.testing.assert_array_equal(scores, all_scores[best])
    assert len(add_proposals(dicts, read, "set")) == len(IDS)


def test_a_stopped_run_goes_on(dicts, tmp_path, monkeypatch):
    """The second run makes only what the first did not; the result is that of one run."""
    make(dicts, tmp_path / "whole.pkl")
    broken = [*dicts[:5], {**dicts[5], "file_name": "/gone/picture.jpg"}, *dicts[6:]]
    with pytest.raises(IONError, match="/gone/picture.jpg does not exist"):
        make(broken, tmp_path / "p.pkl", workers=1)
    parts = tmp_path / "p.pkl.parts"
    finished = list(parts.glob("*.npz"))
    assert len(finished) >= 5 and not (tmp_path / "p.pkl").exists()
    # One that was cut short, as by a power failure, is made again.
    finished[0].write_bytes(finished[0].read_bytes()[:60])
    made = []
    monkeypatch.setattr("proposals_making._needed", lambda r: made.append(r["image_id"]) or r)
    make(dicts, tmp_path / "p.pkl")
    assert len(set(made)) == len(made) == 1 + len(IDS) - len(finished)
    assert (tmp_path / "p.pkl").read_bytes() == (tmp_path / "whole.pkl").read_bytes()
    assert not parts.exists()


def test_broken_pictures_stop_or_have_no_boxes(dicts, tmp_path, caplog):
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(IONError, match="is 40x30 pixels.*says 41x30"):
        make([{**dicts[0], "width": 41}], tmp_path / "p.pkl")
    two = [dicts[0], {**dicts[1], "file_name": str(tmp_path / "broken.jpg")}]
    with pytest.raises(IONError, match="broken.jpg cannot be decoded"):
        make(two, tmp_path / "p.pkl")
    made = make(two, tmp_path / "p.pkl", skip_unreadable=True)
    assert [len(b) for b in made.boxes] == [4, 0]
    assert "broken.jpg" in caplog.text


def test_a_place_that_cannot_be_written_is_told(dicts, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(IONError, match="file/p.pkl.parts cannot be written .*another name"):
        make(dicts, tmp_path / "file/p.pkl")


def test_a_killed_worker_is_told(dicts, tmp_path):
    with pytest.raises(IONError, match="worker process was killed.*fewer workers"):
        make(dicts, tmp_path / "p.pkl", build=proposers.fatal)


PROGRAM = """
import json, sys
sys.path[:0] = sys.argv[1].split(",")
import proposers
from proposals_making import Job, generate_proposals
from ion_d2.engine.setup import run_cli
dicts, output = json.load(open(sys.argv[2])), sys.argv[3]
job = Job(proposers.slow, 4, {"method": "stand-in", "max_boxes": 4})
run_cli(lambda: generate_proposals(dicts, job, output, num_workers=2) and None)
"""


@contextlib.contextmanager
def running(dicts, tmp_path, output):
    """A slow run that has made the boxes of a picture at least, in a process of its own."""
    (tmp_path / "dicts.json").write_text(json.dumps([{**d, "annotations": []} for d in dicts]))
    here = Path(__file__).resolve()
    paths = f"{here.parent},{here.parents[2] / 'tools'}"
    command = [sys.executable, "-c", PROGRAM, paths, str(tmp_path / "dicts.json"), str(output)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 120
    while not list(Path(f"{output}.parts").glob("*.npz")) and time.monotonic() < deadline:
        time.sleep(0.02)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_ctrl_c_and_a_kill_lose_nothing(dicts, tmp_path, stop):
    output, parts = tmp_path / "p.pkl", tmp_path / "p.pkl.parts"
    with running(dicts, tmp_path, output) as process:
        process.send_signal(stop)
        _, err = process.communicate(timeout=60)  # returns once the workers have closed it too
    assert "Traceback" not in err
    if stop == signal.SIGINT:
        assert process.returncode == 130 and err.endswith("Interrupted.\n")
    finished = len(list(parts.glob("*.npz")))
    assert 1 <= finished < len(IDS) and not output.exists()
    make(dicts, output)
    make(dicts, tmp_path / "whole.pkl")
    assert output.read_bytes() == (tmp_path / "whole.pkl").read_bytes()


@pytest.mark.skipif(os.name != "posix", reason="locks")
def test_another_run_of_the_same_result_is_refused(dicts, tmp_path):
    output = tmp_path / "p.pkl"
    with running(dicts, tmp_path, output) as process:
        told = f"p.pkl.parts is in use by another run .process {process.pid} on"
        with pytest.raises(IONError, match=told):
            make(dicts, output)
        assert process.communicate(timeout=60) and process.returncode == 0
    make(dicts, tmp_path / "whole.pkl")
    assert output.read_bytes() == (tmp_path / "whole.pkl").read_bytes()
    assert not Path(f"{output}.parts").exists()


def stopped_run(dicts, output):
    """A run that makes the boxes of two pictures and then stops."""
    with pytest.raises(IONError):
        make([*dicts[:2], {**dicts[2], "file_name": "/gone/picture.jpg"}], output, workers=1)


def test_other_settings_do_not_mix(dicts, tmp_path):
    """A stopped run's boxes made under other settings are not taken."""
    stopped_run(dicts, tmp_path / "p.pkl")
    made = make(dicts, tmp_path / "p.pkl", settings={**SETTINGS, "max_boxes": 2})
    assert {len(boxes) for boxes in made.boxes} == {2}


def test_pictures_that_changed_are_made_again(dicts, tmp_path):
    """A stopped run's boxes of another picture with the same image id are not taken."""
    stopped_run(dicts, tmp_path / "p.pkl")
    exchanged = [{**dicts[i], "file_name": dicts[1 - i]["file_name"]} for i in (0, 1)]
    make(exchanged, tmp_path / "p.pkl")
    with pytest.raises(IONError, match="p.pkl exists already"):
        make(dicts, tmp_path / "p.pkl")
    make(exchanged, tmp_path / "new.pkl")
    assert (tmp_path / "p.pkl").read_bytes() == (tmp_path / "new.pkl").read_bytes()
