"""Bad proposals, configs and weights, and a disk that fails, each through a program's front door.

Each ends with status 1 and one sentence that names what is wrong, and what was there stays.
"""

from __future__ import annotations

import errno
import os
import pickle
import sys

import numpy as np
import pytest
import torch
from cli_helpers import load_program, says, voc_arguments
from hostile_helpers import CANARY
from hostile_weights import (
    a_bomb_as_a_checkpoint,
    code_in_a_checkpoint,
    code_in_a_file_of_the_model_zoo,
)
from PIL import Image
from refusal_helpers import refused, text
from voc_folder import object_xml, write_voc

from ion_d2.engine.setup import run_cli

pytestmark = pytest.mark.usefixtures("catalogs")

CAT = object_xml("cat", (3, 4, 30, 25))


def content(**changes):
    boxes = [np.array([[1, 2, 9, 9]], np.float32)]
    whole = {"ids": ["a"], "boxes": boxes, "objectness_logits": [np.zeros(1)], **changes}
    return pickle.dumps({key: value for key, value in whole.items() if value is not None})


PROPOSALS = {
    "no pickle": (b"ids", "not a readable pickle"),
    "no scores": (content(objectness_logits=None), "objectness_logits"),
    "no list": (content(ids=7), "that are no list"),
    "corners exchanged": (content(boxes=[[[9, 9, 1, 2]]]), "right or bottom lies before"),
    "other images": (content(ids=["b"]), "belongs to another image set"),
    "boxes outside": (content(boxes=[[[1, 2, 99, 9]]]), "outside the picture, which is 40x30"),
}


@pytest.mark.parametrize("kind", PROPOSALS)
def test_proposals(train_net, tmp_path, kind):
    content, words = PROPOSALS[kind]
    root = write_voc(tmp_path / "VOC", {"a": [CAT]}, split="trainval")
    (root / "ImageSets/Main/test.txt").write_text("a\n")
    (tmp_path / "a.pkl").write_bytes(content)
    keys = ("DATASETS.PROPOSAL_FILES_TRAIN", "DATASETS.PROPOSAL_FILES_TEST")
    opts = [part for key in keys for part in (key, f"('{tmp_path}/a.pkl',)")]
    opts += ["MODEL.LOAD_PROPOSALS", True]
    args = voc_arguments(root, tmp_path / "out", *opts)
    refused(tmp_path, lambda: train_net(*args), f"{tmp_path}/a.pkl", words)


CONFIGS = {
    "code": ("SEED: !!python/object/apply:os.getcwd []\n", "asks for more than plain values"),
    "a key that there is not": ("SOLVER: {BASELR: 1}\n", "Did you mean SOLVER.BASE_LR?"),
    "a value of another type": ("SOLVER: {BASE_LR: fast}\n", "SOLVER.BASE_LR"),
    "no YAML": ("SOLVER: {", "cannot be read as YAML"),
    "a list": ("- 1\n", "must hold KEY: VALUE lines"),
    "nothing": ("", "must hold KEY: VALUE lines"),
    "words": ("just words", "must hold KEY: VALUE lines"),
    "a base that is not there": ("_BASE_: gone.yaml\n", "which a _BASE_ names"),
    "a base that is itself": ("_BASE_: a.yaml\n", "leads back to itself"),
    "bytes": (b"\xff\xfe\0", "a.yaml"),
    "another encoding": (b"MODEL: {WEIGHTS: '\xfa'}\n", "utf-8"),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_config(train_net, tmp_path, kind):
    content, words = CONFIGS[kind]
    text("a.yaml", content)(tmp_path)
    args = ("--config-file", tmp_path / "a.yaml", "OUTPUT_DIR", tmp_path / "out")
    refused(tmp_path, lambda: train_net(*args), "a.yaml", words)


WEIGHTS = {
    "no checkpoint": (text("a.pth", "weights"), "a.pth is not a readable checkpoint"),
    "code": (code_in_a_checkpoint, "a.pth holds Python objects"),
    "code of the model zoo": (
        code_in_a_file_of_the_model_zoo,
        "a.pkl holds Python",
    ),
    "a bomb": (a_bomb_as_a_checkpoint, "a.pth would unpack to"),
    "no file": (lambda folder: None, "a.pth is not a file"),
    "tensors of something else": (
        lambda folder: torch.save({"other": torch.ones(1)}, folder / "a.pth"),
        "Nothing in ",
    ),
}


@pytest.mark.parametrize("kind", WEIGHTS)
def test_weights(monkeypatch, capfd, tmp_path, kind):
    make, words = WEIGHTS[kind]
    make(tmp_path)
    name = "a.pkl" if (tmp_path / "a.pkl").exists() else "a.pth"
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    fixed = voc_arguments(tmp_path, tmp_path / "out", "MODEL.WEIGHTS", tmp_path / name)
    args = ["demo.py", "--input", tmp_path / "a.png", "--output", tmp_path / "out"]
    args += ["--classes", tmp_path / "classes.txt", *fixed]
    monkeypatch.setattr(sys, "argv", list(map(str, args)))

    def run():
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            run_cli(load_program("demo.py").main)
        return (stop.value.code, *capfd.readouterr())

    refused(tmp_path, run, words)
    assert not (tmp_path / CANARY).exists()


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EIO, ("a.json could not be read or written", "mend the disk")),
        (errno.ENOSPC, ("a.json could not be written", "free space")),
    ],
)
def test_a_disk_that_fails_is_told(number, words, capfd):
    def main():
        raise OSError(number, os.strerror(number), "a.json")

    with pytest.raises(SystemExit) as stop:
        run_cli(main)
    assert says((stop.value.code, *capfd.readouterr()), *words, os.strerror(number))
