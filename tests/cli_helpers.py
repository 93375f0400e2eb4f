"""Programs as modules, arguments for short runs, and what a told failure looks like."""

import importlib.util
import re
from pathlib import Path

import pytest
from model_helpers import SMALL

from ion_d2.engine.setup import run_cli

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


def load_program(path):
    """A program, by its path from the project's root, as a new module."""
    path = Path(__file__).resolve().parents[1] / path
    spec = importlib.util.spec_from_file_location(f"{path.stem}_program", path)
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    return program


def load_tool(name):
    return load_program(f"tools/{name}.py")


def run_tool(tool, capfd, *arguments):
    """Exit status, stdout and stderr of a tool in this process."""
    capfd.readouterr()
    with pytest.raises(SystemExit) as stop:
        run_cli(lambda: tool.main([str(argument) for argument in arguments]))
    return (stop.value.code or 0, *capfd.readouterr())


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


def contents(folder):
    """Path below the folder -> bytes, of all files in it."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def output_of(result):
    """What the program printed, which has to have ended well and without a word on stderr."""
    status, out, err = result
    assert (status, own_lines(err)) == (0, []), err
    return out


def own_lines(err):
    """The lines of standard error without those that torch logs at its start."""
    of_torch = re.compile(r"(\[rank\d+\]:)?[IW]\d{4} .*\btorch/")
    return [line for line in err.splitlines() if not of_torch.match(line)]
