"""Bad input of each kind, and a disk that fails, through a program's front door.

Each ends with status 1 and one sentence that names what is wrong, and what was there stays. What
else may be wrong is in the tests of each reader: tests/data, tests/engine and test_hostile_files.
"""

from __future__ import annotations

import errno
import os
import sys

import pytest
from cli_helpers import arguments, contents, load_program, says, voc_arguments
from coco_json import TWO, write_coco
from hostile_helpers import CANARY
from hostile_weights import code_in_a_checkpoint
from PIL import Image
from voc_folder import object_xml, write_split, write_voc

from ion_d2.engine.setup import run_cli

pytestmark = pytest.mark.usefixtures("catalogs")


def voc(folder):
    root = write_voc(folder / "VOC", {"a": [object_xml("cat", (3, 4, 30, 25))]}, split="trainval")
    write_split(root, "test", "a\n")
    return f"voc:{root}:trainval"


def coco(folder):
    return write_coco(folder, *TWO)


def yolo(folder):
    for name in ("images", "labels"):
        (folder / name).mkdir()
    Image.new("RGB", (40, 30)).save(folder / "images" / "a.png")
    (folder / "data.yaml").write_text("names: [cat]\ntrain: images\n")
    return f"yolo:{folder}/data.yaml:train"


def labelme(folder):
    Image.new("RGB", (40, 30)).save(folder / "a.png")
    return f"labelme:{folder}"


# A dataset, a file of it that is replaced by another content, and words of what is told.
DATA = {
    "a list": (voc, "VOC/ImageSets/Main/trainval.txt", b"a\na\n", "names image 'a' more than once"),
    "XML": (voc, "VOC/Annotations/a.xml", b"<annotation><ob", "not well-formed XML"),
    "a picture": (voc, "VOC/JPEGImages/a.jpg", b"hello", "a.jpg cannot be decoded"),
    "classes": (voc, "VOC/classes.txt", b"cat\ncat\n", "names cat more than once"),
    "COCO": (coco, "all.json", b"{", "all.json cannot be read as JSON"),
    "YOLO": (yolo, "labels/a.txt", b"0 .1 .1 .1", "has 3 numbers"),
    "labelme": (labelme, "a.json", b"{}", "no list of 'shapes'"),
}


@pytest.mark.parametrize("kind", DATA)
def test_a_dataset(train_net, tmp_path, kind):
    write, file, content, words = DATA[kind]
    name = write(tmp_path)
    (tmp_path / file).write_bytes(content)
    refused(tmp_path, lambda: train_net(*arguments(name, name, tmp_path / "out")), words)


def test_proposals(train_net, tmp_path):
    name = voc(tmp_path)
    (tmp_path / "a.pkl").write_bytes(b"ids")
    opts = ("DATASETS.PROPOSAL_FILES_TRAIN", f"('{tmp_path}/a.pkl',)", "MODEL.LOAD_PROPOSALS", True)
    args = arguments(name, name, tmp_path / "out", *opts, "DATASETS.TEST", "()")
    refused(tmp_path, lambda: train_net(*args), f"{tmp_path}/a.pkl", "not a readable pickle")


def test_a_config(train_net, tmp_path):
    (tmp_path / "a.yaml").write_text("SOLVER: {BASELR: 1}\n")
    args = ("--config-file", tmp_path / "a.yaml", "OUTPUT_DIR", tmp_path / "out")
    refused(tmp_path, lambda: train_net(*args), "a.yaml", "Did you mean SOLVER.BASE_LR?")


def test_weights(monkeypatch, capfd, tmp_path):
    code_in_a_checkpoint(tmp_path)
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    fixed = voc_arguments(tmp_path, tmp_path / "out", "MODEL.WEIGHTS", tmp_path / "a.pth")
    args = ["demo.py", "--input", tmp_path / "a.png", "--output", tmp_path / "out"]
    args += ["--classes", tmp_path / "classes.txt", *fixed]
    monkeypatch.setattr(sys, "argv", list(map(str, args)))
    refused(tmp_path, lambda: ended(load_program("demo.py").main, capfd), "holds Python objects")
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

    assert says(ended(main, capfd), *words, os.strerror(number))


def ended(main, capfd):
    """Exit status, stdout and stderr of a program in this process."""
    capfd.readouterr()
    with pytest.raises(SystemExit) as stop:
        run_cli(main)
    return (stop.value.code, *capfd.readouterr())


def refused(folder, run, *words):
    """What a program is asked for fails with the words, and every file stays as it was."""
    (folder / "out").mkdir()
    (folder / "out" / "model_final.pth").write_text("an earlier run's")
    before = contents(folder)
    assert says(run(), *words)
    after = contents(folder)
    assert {path: after.get(path) for path in before} == before
    assert not [path for path in after.keys() - before.keys() if path.endswith((".pth", ".yaml"))]
