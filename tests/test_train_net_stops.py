"""train_net.py is stopped by signals and full disks in good order, and resumed."""

import multiprocessing
import os
import shutil
import signal
import time

import pytest
import torch
from cli_helpers import output_of, own_lines, says, voc_arguments
from detectron2.engine import HookBase
from process_helpers import file_size_limit, finish, start, wait_until
from trainer_helpers import assert_same

from ion_d2.engine.trainer import IONTrainer

pytestmark = pytest.mark.slow

# Enough that a signal comes before the last.
STEPS = 25


def run_arguments(scenes, output, *opts, flags=()):
    """A run that writes a checkpoint a step, so that its log tells of each, and tests nothing."""
    opts = ("SOLVER.MAX_ITER", STEPS, "SOLVER.CHECKPOINT_PERIOD", 1, "DATASETS.TEST", "()", *opts)
    return voc_arguments(scenes, output, *opts, flags=flags)


def start_with_workers(scenes, output):
    return start(run_arguments(scenes, output, "DATALOADER.NUM_WORKERS", 2))


def wait_for(output, text, process):
    """Wait until the log holds a text."""
    log = output / "log.txt"
    wait_until(lambda: log.is_file() and text in log.read_text(), process)


def saved(folder):
    """What the finished run's checkpoint holds."""
    return torch.load(folder / "model_final.pth", weights_only=False)


@pytest.mark.parametrize(
    "number, apart", [(signal.SIGINT, 0.05), (signal.SIGTERM, 0.05), (signal.SIGTERM, 0.3)]
)
def test_a_signal_to_all_processes_saves_and_stops(scenes, tmp_path, train_net, number, apart):
    process = start_with_workers(scenes, tmp_path)
    wait_for(tmp_path, "model_0000003.pth", process)
    os.killpg(process.pid, number)
    # Two that wait at once are handled by their numbers; the second may meet the program's exit.
    time.sleep(apart)
    os.killpg(process.pid, signal.SIGINT)  # as a launcher does that passes the signal on
    status, out, err = finish(process)
    assert status == 128 + number
    (line,) = own_lines(err)
    assert "Traceback" not in out
    last = (tmp_path / "last_checkpoint").read_text()
    iteration = int(last[len("model_") : -len(".pth")])
    assert 3 <= iteration < STEPS - 1
    assert f"after iteration {iteration}." in line and "--resume" in line
    if number == signal.SIGINT:
        check_resuming(scenes, tmp_path, train_net, iteration)


def check_resuming(scenes, folder, train_net, iteration):
    """Resumed in this process and without workers, it ends as a run that nothing stopped."""
    out = output_of(train_net(*run_arguments(scenes, folder, flags=["--resume"])))
    assert f"Starting training from iteration {iteration + 1}" in out
    whole = folder / "whole"
    opts = ("SOLVER.CHECKPOINT_PERIOD", 100)
    assert train_net(*run_arguments(scenes, whole, *opts))[0] == 0
    assert_same(saved(folder)["model"], saved(whole)["model"])


def children(pid):
    """The processes that a process started."""
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="no /proc to find workers by")
def test_a_second_ctrl_c_gives_up_the_step_at_hand(scenes, tmp_path):
    process = start_with_workers(scenes, tmp_path)
    wait_for(tmp_path, "model_0000001.pth", process)
    workers = children(process.pid)
    for worker in workers:  # soon the training process waits for pictures that do not come
        os.kill(worker, signal.SIGSTOP)
    time.sleep(1)
    os.kill(process.pid, signal.SIGINT)
    wait_for(tmp_path, "once more to stop at once", process)
    time.sleep(0.6)  # two within half a second are one
    os.kill(process.pid, signal.SIGINT)
    time.sleep(0.2)
    for worker in workers:
        os.kill(worker, signal.SIGCONT)
    status, out, err = finish(process)
    assert status == 130 and "Traceback" not in out
    # The workers may tell that they lost their connection.
    assert "Interrupted." in own_lines(err) and "KeyboardInterrupt" not in err
    assert (tmp_path / "last_checkpoint").is_file() and not list(tmp_path.glob("*.tmp"))


def test_ctrl_c_stops_the_last_evaluation_at_once(scenes, tmp_path, train_net, monkeypatch):
    def test(cls, cfg, model):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)

    monkeypatch.setattr(IONTrainer, "test", classmethod(test))
    status, out, err = train_net(*run_arguments(scenes, tmp_path, "SOLVER.MAX_ITER", 1))
    assert (status, own_lines(err)) == (130, ["Interrupted."]) and "Traceback" not in out
    assert (tmp_path / "model_final.pth").is_file()


@pytest.fixture
def finished(scenes, tmp_path, train_net):
    """The folder of a run of one step."""
    opts = ("SOLVER.MAX_ITER", 1, "SOLVER.CHECKPOINT_PERIOD", 100)
    assert train_net(*run_arguments(scenes, tmp_path, *opts))[0] == 0
    return tmp_path


def checkpoints(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.pth*")}


def test_full_disk_while_a_checkpoint_is_written(scenes, finished, train_net):
    before = checkpoints(finished)
    args = run_arguments(scenes, finished, "SOLVER.MAX_ITER", 3, flags=["--resume"])
    with file_size_limit(len(before["model_final.pth"]) // 2):
        result = train_net(*args)
    assert says(result, f"{finished}/model_0000001.pth could not be written", "--resume")
    assert checkpoints(finished) == before
    assert train_net(*args)[0] == 0 and saved(finished)["iteration"] == 2


def test_full_disk_while_the_log_is_written(scenes, tmp_path, train_net):
    (tmp_path / "log.txt").symlink_to("/dev/full")
    status, out, err = train_net(*run_arguments(scenes, tmp_path, "SOLVER.MAX_ITER", 1))
    (line,) = own_lines(err)
    assert status == 0 and "Traceback" not in out + err and "log.txt cannot be written" in line
    assert saved(tmp_path)["model"]


@pytest.mark.parametrize("period", [1, 100])
def test_the_folder_is_removed_while_it_trains(scenes, tmp_path, train_net, monkeypatch, period):
    class Remove(HookBase):
        def after_step(self):
            shutil.rmtree(tmp_path / "out", ignore_errors=True)

    build = IONTrainer.build_hooks
    monkeypatch.setattr(IONTrainer, "build_hooks", lambda self: [Remove(), *build(self)])
    # Where no checkpoint meets it first, a writer of metrics does.
    opts = ("SOLVER.MAX_ITER", 22, "SOLVER.CHECKPOINT_PERIOD", period)
    result = train_net(*run_arguments(scenes, tmp_path / "out", *opts))
    assert says(result, f"The folder {tmp_path}/out is gone", "--resume")


def test_a_worker_is_killed(scenes, tmp_path, train_net, monkeypatch):
    class Kill(HookBase):
        def before_step(self):
            if self.trainer.iter == 2:
                multiprocessing.active_children()[0].kill()

    build = IONTrainer.build_hooks
    opts = ("DATALOADER.NUM_WORKERS", 2, "SOLVER.MAX_ITER", 100)
    with monkeypatch.context() as patch:
        patch.setattr(IONTrainer, "build_hooks", lambda self: [*build(self), Kill()])
        result = train_net(*run_arguments(scenes, tmp_path, *opts))
    assert says(result, "loads pictures has ended", "DATALOADER.NUM_WORKERS", "--resume")
    assert (tmp_path / "last_checkpoint").read_text().startswith("model_00000")


def test_full_disk_while_metrics_are_written(scenes, finished, train_net):
    (finished / "metrics.json").unlink()
    (finished / "metrics.json").symlink_to("/dev/full")
    before = checkpoints(finished)
    opts = ("SOLVER.MAX_ITER", 8, "SOLVER.CHECKPOINT_PERIOD", 100)
    result = train_net(*run_arguments(scenes, finished, *opts, flags=["--resume"]))
    assert says(result, "No space left on device", "--resume")
    assert checkpoints(finished).keys() >= before.keys() and saved(finished)["model"]
