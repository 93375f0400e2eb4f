"""train_net.py in two processes: torchrun, one that is killed, and going on."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch
from cli_helpers import own_lines, says, voc_arguments

from ion_d2.engine.checkpoint import IONCheckpointer
from ion_d2.engine.fit_config import settle_data
from ion_d2.engine.setup import load_config
from ion_d2.engine.trainer import IONTrainer
from ion_d2.engine.validation_loss import validation_losses

pytestmark = pytest.mark.slow

STEPS = 8
MODEL = ("MODEL.SEG_REGULARIZER_ON", True)
OPTIONS = (
    *MODEL, "SOLVER.MAX_ITER", STEPS, "SOLVER.CHECKPOINT_PERIOD", 1, "DISTRIBUTED.TIMEOUT", 30,
    "SOLVER.EMA_DECAY", 0.5, "TEST.EVAL_PERIOD", 4, "TEST.LOSS", True, "TEST.BEST_METRIC",
    "validation/total_loss",
)  # fmt: skip


def start(command, **variables):
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", **variables}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ,
        start_new_session=True,
    )  # fmt: skip


def start_pair(arguments):
    """Two processes with torchrun's variables, without torchrun to end one with the other."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    meeting = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [sys.executable, "train_net.py", *arguments]
    return [start(command, RANK=str(i), LOCAL_RANK=str(i), **meeting) for i in range(2)]


def wait_for(path, processes):
    deadline = time.monotonic() + 120
    while not path.exists():
        ended = [p.communicate() for p in processes if p.poll() is not None]
        assert not ended and time.monotonic() < deadline, ended
        time.sleep(0.02)


@pytest.fixture(scope="module")
def killed(scenes, tmp_path_factory):
    """The folder of a run whose second process was killed, and what the first one said."""
    folder = tmp_path_factory.mktemp("output")
    first, second = start_pair(voc_arguments(scenes, folder, *OPTIONS, "SOLVER.MAX_ITER", 5000))
    wait_for(folder / "model_0000001.pth", (first, second))
    os.kill(second.pid, signal.SIGKILL)
    killed_at = time.monotonic()
    out, err = first.communicate(timeout=100)
    second.communicate()
    return folder, (first.returncode, out, err), time.monotonic() - killed_at


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
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    process = start([*torchrun, "train_net.py", *arguments])
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert "Rank of current process: 0. World size: 2" in out
    final = folder / "model_final.pth"
    assert torch.load(final)["iteration"] == STEPS - 1
    together = json.loads((folder / "voc_results.json").read_text())
    alone = folder / "alone"
    check_loss(voc_arguments(scenes, alone, *MODEL), folder)
    args = voc_arguments(scenes, alone, *MODEL, "MODEL.WEIGHTS", final, flags=["--eval-only"])
    status, _, err = train_net(*args)
    assert (status, own_lines(err)) == (0, [])
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


def test_torchrun_and_own_launch_together_are_refused(train_net, scenes, tmp_path, monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "x",
                        "MASTER_PORT": "1"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    args = voc_arguments(scenes, tmp_path, flags=["--num-gpus", "2"])
    assert says(train_net(*args), "torchrun has started", "--num-gpus")


def test_several_machines_without_gpus_need_torchrun(train_net, scenes, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    args = voc_arguments(scenes, tmp_path, flags=["--num-machines", "2"])
    assert says(train_net(*args), "0 GPUs", "torchrun")
