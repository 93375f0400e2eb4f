"""Studies are run: order, resumption, failures, parallel jobs, interruption, locks."""

from __future__ import annotations

import _thread
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from study_helpers import CONV5, ROOT, SKIP, calls, make_study, results

from ion_d2.errors import IONError
from ion_lab.study import Interrupted, run_study
from ion_lab.study.locks import try_lock

pytestmark = pytest.mark.slow


def first_process(study):
    """Folder of each run -> when its first process began and ended."""
    times = {}
    for path in (study.out / "runs").glob("*/calls.txt"):
        lines = path.read_text().splitlines()
        times[path.parent.name] = (float(lines[0].split()[3]), float(lines[1].split()[1]))
    return times


def test_runs_in_order_and_tells_mean_and_spread(tmp_path):
    lines = []
    study = make_study(tmp_path, tell=lines.append)
    assert run_study(study) == []
    started = [line.split(": started")[0] for line in lines if ": started" in line]
    assert started == [
        f"{row}, scenes, seed {seed}" for seed in (0, 1) for row in ("conv5", "skip")
    ]
    times = sorted(first_process(study).values())
    assert all(end <= begin for (_, end), (begin, _) in zip(times, times[1:]))
    told = results(study)
    assert [row["row"] for row in told["rows"]] == ["conv5", "skip"]
    # The program's figures: 10 a feature, 1 a seed, and 0 and 2 for the two classes.
    conv5, skip = told["rows"]
    assert [run["figures"]["ordinary"] for run in skip["runs"]] == [21.0, 22.0]
    expected = {"mean": 11.5, "spread": pytest.approx(0.5**0.5), "count": 2}
    assert conv5["figures"]["ordinary"] == expected
    # Seed by seed 10 each, though either row differs over the seeds.
    spread = {"spread": 0.0, "half_width": 0.0, "pooled_spread": pytest.approx(0.5**0.5)}
    assert skip["difference"]["ordinary"] == {"mean": 10.0, "count": 2, **spread}
    assert (study.folder / "table.md").is_file() and (study.folder / "small.png").is_file()
    assert (study.folder / skip["runs"][0]["folder"] / "voc_results.json").is_file()
    assert not list((study.out / "runs").glob("*/model_0000000.pth"))
    assert len(list((study.out / "runs").glob("*/model_final.pth"))) == 4


def test_two_at_a_time_with_one_thread_each(tmp_path):
    rows = {"a": {**CONV5, "TEST.EVAL_PERIOD": 5}, "b": {**SKIP, "TEST.EVAL_PERIOD": 5}}
    study = make_study(tmp_path, jobs=2, changes={"rows": rows, "baseline": "a"})
    assert run_study(study) == []  # the first did not end before the second began
    times = sorted(first_process(study).values())
    for number, (begin, _) in enumerate(times):
        assert sum(other < begin < end for other, end in times[:number]) < 2
    for path in (study.out / "runs").glob("*/calls.txt"):
        assert path.read_text().split()[1] == "1"


def test_finished_runs_are_not_repeated_and_changed_settings_are_other_runs(tmp_path):
    study = make_study(tmp_path)
    run_study(study)
    before = calls(study)
    lines = []
    again = make_study(tmp_path, tell=lines.append)
    run_study(again)
    assert calls(again) == before and lines == ["4 of 4 runs are finished already."]
    changed = {"rows": {"conv5": CONV5, "skip": {**SKIP, "SOLVER.BASE_LR": 0.02}}}
    run_study(make_study(tmp_path, changes=changed))
    # Other names alone are no other runs.
    renamed = {"rows": {"a": CONV5, "b": SKIP}, "baseline": "a"}
    run_study(make_study(tmp_path, changes=renamed))
    after = calls(again)
    assert {name: after[name] for name in before} == before
    assert sorted(set(after) - set(before)) == ["skip-scenes-seed-0_2", "skip-scenes-seed-1_2"]


def test_the_quick_cut_and_seeds_have_runs_of_their_own(tmp_path):
    study = make_study(tmp_path, cut="quick", seeds=(5,))
    run_study(study)
    assert study.folder.name == "small-quick" and results(study)["seeds"] == [5]
    assert sorted(calls(study)) == ["conv5-scenes-seed-5", "skip-scenes-seed-5"]
    run_study(make_study(tmp_path, seeds=(5,)))
    assert len(calls(study)) == 4


def test_a_failed_run_is_named_and_the_others_go_on(tmp_path):
    lines = []
    changes = {"rows": {"conv5": {**CONV5, "TEST.EVAL_PERIOD": 1}, "skip": SKIP}}
    study = make_study(tmp_path, tell=lines.append, changes=changes)
    failures = run_study(study)
    assert len(failures) == 2
    for seed, failure in enumerate(failures):
        assert f"conv5, scenes, seed {seed}" in failure and "the loss is not finite" in failure
        log = study.out.absolute() / "runs" / f"conv5-scenes-seed-{seed}" / "study.log"
        assert str(log) in failure and "not finite" in log.read_text()
    conv5, skip = (row["figures"]["ordinary"] for row in results(study)["rows"])
    assert conv5["mean"] is None and skip["count"] == 2
    assert "| conv5 | –" in (study.folder / "table.md").read_text()
    # Tried again, it goes on from its last checkpoint.
    assert len(run_study(study)) == 2
    assert calls(study)["conv5-scenes-seed-0"] == [0, 4]


def test_a_run_without_results_has_failed(tmp_path):
    changes = {"rows": {"conv5": {**CONV5, "TEST.EVAL_PERIOD": 3}}, "full": {"seeds": [0]}}
    (failure,) = run_study(make_study(tmp_path, changes=changes))
    assert "voc_results.json" in failure


def test_a_run_without_weights_keeps_its_checkpoints_and_has_failed(tmp_path):
    changes = {"rows": {"conv5": {**CONV5, "TEST.EVAL_PERIOD": 6}}, "full": {"seeds": [0]}}
    study = make_study(tmp_path, changes=changes)
    (failure,) = run_study(study)
    assert "model_final.pth" in failure
    assert [path.name for path in study.out.glob("runs/*/*.pth")] == ["model_0000000.pth"]


def wait_for(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_ctrl_c_stops_the_trainings_and_the_same_study_goes_on(tmp_path):
    changes = {"rows": {"conv5": CONV5, "skip": {**SKIP, "TEST.EVAL_PERIOD": 2}}}
    study = make_study(tmp_path, changes=changes, jobs=2, seeds=(0,))
    checkpoint = study.out / "runs" / "skip-scenes-seed-0" / "model_0000000.pth"

    def interrupt():
        wait_for((study.folder / "results.json").exists)  # conv5 is finished
        wait_for(lambda: checkpoint.exists() and checkpoint.read_text() == "4")
        _thread.interrupt_main()

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(Interrupted):
        run_study(study)
    thread.join()
    conv5, skip = results(study)["rows"]
    assert (conv5["figures"]["ordinary"]["count"], skip["figures"]["ordinary"]["count"]) == (1, 0)
    lock = try_lock(checkpoint.parent / "lock")  # no process is left that holds it
    assert lock is not None
    lock.close()
    assert run_study(study) == []
    assert calls(study) == {"conv5-scenes-seed-0": [0], "skip-scenes-seed-0": [0, 4]}


def test_two_commands_at_once_write_the_same_table(tmp_path, monkeypatch):
    monkeypatch.setattr("ion_lab.study.study_of_table.draw_plots", lambda *_: [])
    study = make_study(tmp_path)
    assert run_study(study) == []
    with ThreadPoolExecutor(2) as pool:
        told = list(pool.map(lambda _: run_study(study), range(60)))
    assert told == [[]] * 60
    assert results(study)["seeds"] == [0, 1]


def test_a_training_that_outlives_its_study_is_not_started_twice(tmp_path):
    """The study is killed, its training goes on; the next study waits for it."""
    changes = {"rows": {"conv5": {**CONV5, "TEST.EVAL_PERIOD": 4}}}
    script = (
        "import sys; from pathlib import Path\n"
        f"sys.path.insert(0, {str(ROOT / 'tests' / 'lab' / 'study')!r})\n"
        "from study_helpers import make_study; from ion_lab.study import run_study\n"
        f"run_study(make_study(Path({str(tmp_path)!r}), changes={changes!r}, seeds=(0,)))"
    )
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
    wait_for((tmp_path / "out" / "runs" / "conv5-scenes-seed-0" / "calls.txt").exists)
    process.kill()
    process.wait()
    lines = []

    def hear(line):
        lines.append(line)
        (tmp_path / "out" / "runs" / "release").touch()

    study = make_study(tmp_path, changes=changes, seeds=(0,), tell=hear)
    assert run_study(study) == []
    assert lines[0] == "conv5, scenes, seed 0: another process trains it; waiting."
    # The second process found the first one's last checkpoint.
    assert calls(study) == {"conv5-scenes-seed-0": [0, 10]}


def test_the_time_of_a_training_whose_end_nobody_noted_counts(tmp_path):
    study = make_study(tmp_path, seeds=(0,), changes={"rows": {"conv5": CONV5}})
    run_study(study)
    folder = study.out / "runs" / "conv5-scenes-seed-0"
    note = json.loads((folder / "run.json").read_text())
    assert note["begun"] is None and note["seconds"] < 50
    # As a study leaves it that was killed 100 seconds ago, and whose training wrote for 60 more.
    now = time.time()
    note.update(finished=False, seconds=5.0, begun=now - 100)
    (folder / "run.json").write_text(json.dumps(note))
    os.utime(folder / "study.log", (now - 40, now - 40))
    run_study(study)
    note = json.loads((folder / "run.json").read_text())
    assert note["begun"] is None and 65 <= note["seconds"] < 100


def test_given_folders(tmp_path, scenes):
    changes = {"data": {"mine": {"folder": "mine"}, "other": {"folder": "other"}}}
    study = make_study(tmp_path, changes=changes, given={"mine": scenes}, seeds=(0,))
    run_study(study)
    assert results(study)["data"] == ["mine"]
    with pytest.raises(IONError, match="--data mine=PATH"):
        run_study(make_study(tmp_path, changes=changes))
    with pytest.raises(IONError, match="--data mien is no .*, which takes mine, other"):
        run_study(make_study(tmp_path, changes=changes, given={"mien": scenes}))


def test_a_column_of_a_class_that_the_data_lacks_is_told_and_stays_empty(tmp_path):
    columns = {"ordinary": "classes/*/area/AP50", "sheep": "classes/sheep/area/AP50"}
    lines = []
    study = make_study(tmp_path, changes={"columns": columns}, seeds=(0,), tell=lines.append)
    assert run_study(study) == []
    assert lines[0] == (
        "scenes has no class of these columns, which stay empty there: sheep "
        "(its classes: cross, triangle)"
    )
    conv5, skip = results(study)["rows"]
    assert skip["figures"]["sheep"] == {"mean": None, "spread": None, "count": 0}
    assert skip["figures"]["ordinary"]["mean"] == 21.0 and skip["difference"]["sheep"]["count"] == 0
    assert "| skip  | 21.0" in (study.folder / "table.md").read_text()
