"""train_net.py in two processes: torchrun, one that is killed, and going on."""

import json
import os
import signal
import time

import pytest
import torch
from cli_helpers import output_of, says, voc_arguments
from process_helpers import finish, free_port, start, wait_until

from ion_d2.engine.checkpoint import IONCheckpointer
from ion_d2.engine.fit_config import settle_data
from ion_d2.engine.folder_lock import claim, release
from ion_d2.engine.setup import load_config
from ion_d2.engine.trainer import IONTrainer
from ion_d2.engine.validation_loss import validation_losses

pytestmark = pytest.mark.slow

STEPS = 8
# Each process has statistics of its own.
MODEL = ("MODEL.SEG_REGULARIZER_ON", True, "MODEL.VGG.NORM", "BN")
OPTIONS = (
    *MODEL, "SOLVER.MAX_ITER", STEPS, "SOLVER.CHECKPOINT_PERIOD", 1, "DISTRIBUTED.TIMEOUT", 30,
    "SOLVER.EMA_DECAY", 0.5, "TEST.EVAL_PERIOD", 4, "TEST.LOSS", True, "TEST.BEST_METRIC",
    "validation/total_loss",
)  # fmt: skip


@pytest.fixture(scope="module")
def killed(scenes, tmp_path_factory):
    """The folder of a run whose second process was killed, and what the first one said."""
    folder = tmp_path_factory.mktemp("output")
    arguments = voc_arguments(scenes, folder, *OPTIONS, "SOLVER.MAX_ITER", 5000)
    # With torchrun's variables, but without torchrun, which would end one with the other.
    meeting = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    first, second = (start(arguments, RANK=r, LOCAL_RANK=r, **meeting) for r in ("0", "1"))
    wait_until((folder / "model_0000001.pth").exists, first, second)
    os.kill(second.pid, signal.SIGKILL)
    killed_at = time.monotonic()
    result = finish(first)
    seconds = time.monotonic() - killed_at
    finish(second)
    return folder, result, seconds


def test_the_other_stops_within_a_minute_and_says_why(killed):
    folder, result, seconds = killed
    assert says(result, "Process 0 lost another process of the 2", "--resume")
    assert seconds < 60 and (folder / "last_checkpoint").is_file()


def test_torchrun_goes_on_to_the_end_and_evaluates_as_one_process(killed, scenes, train_net):
    folder = killed[0]
    name = (folder / "last_checkpoint").read_text()
    if int(name[6:-4]) >= STEPS - 1:  # go on from an early one, however late the kill was
        (folder / "last_checkpoint").write_text("model_0000001.pth")
    arguments = voc_arguments(scenes, folder, *OPTIONS, flags=["--resume"])
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    status, out, err = finish(start(arguments, *torchrun, "tests/watched_program.py"))
    assert status == 0, err
    assert err.count("threads of gloo: 0") == 2, err
    assert "Rank of current process: 0. World size: 2" in out
    final = folder / "model_final.pth"
    assert torch.load(final)["iteration"] == STEPS - 1
    together = json.loads((folder / "voc_results.json").read_text())
    alone = folder / "alone"
    check_loss(voc_arguments(scenes, alone, *MODEL), folder)
    args = voc_arguments(scenes, alone, *MODEL, "MODEL.WEIGHTS", final, flags=["--eval-only"])
    output_of(train_net(*args))
    assert json.loads((alone / "voc_results.json").read_text()) == together
    detections = [json.loads((f / "detections.json").read_text()) for f in (folder, alone)]
    assert sorted(map(str, detections[0])) == sorted(map(str, detections[1])) != []


def check_loss(arguments, folder):
    """The loss that two processes found is that of one, on the averaged weights."""
    history = json.loads((folder / "evaluations.json").read_text())
    assert [entry["iteration"] for entry in history] == [4, STEPS]
    assert (folder / "model_best.pth").is_file()
    cfg = load_config(arguments[1], arguments[2:])
    settle_data(cfg, train=False)
    model = IONTrainer.build_model(cfg)
    IONCheckpointer(model).load(str(folder / "model_final.pth"))
    found = validation_losses(cfg, model, cfg.DATASETS.TEST[0])["total_loss"]
    assert found == pytest.approx(history[-1]["value"], rel=1e-5)


def test_a_folder_in_use_is_told_by_each_process_and_left_alone(scenes, tmp_path):
    (tmp_path / "log.txt.rank1").write_text("its own")
    claim(str(tmp_path))
    meeting = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    before = {path.name for path in tmp_path.iterdir()}
    arguments = voc_arguments(scenes, tmp_path, *OPTIONS)
    both = [start(arguments, RANK=rank, LOCAL_RANK=rank, **meeting) for rank in ("0", "1")]
    for process in both:
        assert says(finish(process), "is in use by another training", "choose another OUTPUT_DIR")
    assert {path.name for path in tmp_path.iterdir()} == before
    assert (tmp_path / "log.txt.rank1").read_text() == "its own"
    release(str(tmp_path))


def test_torchrun_and_own_launch_together_are_refused(train_net, scenes, tmp_path, monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "x",
                        "MASTER_PORT": "1"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    args = voc_arguments(scenes, tmp_path, flags=["--num-gpus", "2"])
    assert says(train_net(*args), "torchrun has started", "--num-gpus")
