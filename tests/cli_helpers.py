"""Arguments for short runs of train_net.py, and what a told failure looks like."""

import os
import re
import socket
import subprocess
import sys
import time

from model_helpers import SMALL

# A small model, whose numbers of classes are the data's, on small pictures, for one step.
FAST = [
    *SMALL, "MODEL.ROI_HEADS.NUM_CLASSES", "0", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "0",
    "INPUT.MIN_SIZE_TRAIN", "(96,)", "INPUT.MIN_SIZE_TEST", "96", "SOLVER.MAX_ITER", "1",
    "TEST.NUM_PICTURES", "0",
]  # fmt: skip


def arguments(train, test, output, *opts, flags=()):
    """Arguments of train_net.py; train and test are names of datasets."""
    datasets = ["DATASETS.TRAIN", f"('{train}',)", "DATASETS.TEST", f"('{test}',)"]
    values = ["--config-file", "configs/ion_tiny.yaml", *flags, *FAST, *datasets]
    return [str(value) for value in (*values, "OUTPUT_DIR", output, *opts)]


def voc_arguments(folder, output, *opts, **kwargs):
    """Arguments of train_net.py for a folder in VOC layout."""
    return arguments(f"voc:{folder}:trainval", f"voc:{folder}:test", output, *opts, **kwargs)


def says(result, *words):
    """Whether the program failed with one sentence, which holds the words, and no traceback."""
    status, out, err = result
    assert status == 1, err
    assert "Traceback" not in out + err
    (line,) = own_lines(err)
    assert line.startswith("error: ")
    for word in words:
        assert word in line
    return True


def own_lines(err):
    """The lines of standard error without those that torch logs at its start."""
    of_torch = re.compile(r"(\[rank\d+\]:)?[IW]\d{4} .*\btorch/")
    return [line for line in err.splitlines() if not of_torch.match(line)]


def start(args, *launcher, **variables):
    """Start train_net.py in a process group of its own, as a shell does."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", **variables}
    command = [sys.executable, *launcher, "train_net.py", *args]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=env, start_new_session=True, **pipes)


def finish(process, timeout=200):
    """Exit status, stdout and stderr of a program that was started."""
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def wait_until(condition, *processes, seconds=120):
    """Wait for something that running programs do."""
    deadline = time.monotonic() + seconds
    while not condition():
        ended = [finish(process) for process in processes if process.poll() is not None]
        assert not ended and time.monotonic() < deadline, ended
        time.sleep(0.02)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
