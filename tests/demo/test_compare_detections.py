"""tools/compare_detections.py: models side by side on the same pictures."""

from functools import partial

import numpy as np
import pytest
import torch
from cli_helpers import load_tool, run_tool, says
from demo_helpers import CONFIG, OPTS, picture
from PIL import Image

from ion_d2.engine.setup import load_config

LOW = ["--confidence-threshold", "0.01"]


@pytest.fixture
def compare(capfd):
    """Runs the program: arguments -> (exit status, stdout, stderr)."""
    return partial(run_tool, load_tool("compare_detections"), capfd)


@pytest.fixture
def make_run(tmp_path, weights):
    """Writes a folder as a training leaves it: name, factor on the scores' weights, classes."""

    def make(name, factor=1.0, classes=("ant", "bee", "cat")):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        opts = [*OPTS, "MODEL.ROI_HEADS.NUM_CLASSES", "3"]
        (folder / "config.yaml").write_text(load_config(CONFIG, opts).dump())
        content = torch.load(weights, weights_only=True)
        scores = content["model"]["roi_heads.box_predictor.cls_score.weight"]
        scores *= factor
        torch.save({**content, "class_names": list(classes)}, folder / "model_final.pth")
        return folder

    return make


@pytest.fixture
def image(tmp_path):
    return picture(tmp_path / "picture.png", size=(64, 96))


def halves(path):
    pixels = np.asarray(Image.open(path)).astype(int)
    middle = pixels.shape[1] // 2
    # Without the titles above, and the margin of the left.
    return pixels[40:, 8:middle], pixels[40:, middle + 4 : -4]


def test_each_model_draws_its_own(compare, make_run, image, tmp_path):
    first, same, other = make_run("a"), make_run("b"), make_run("c", factor=-30.0)
    out = tmp_path / "new" / "both.png"
    sizes = []
    for runs in ([first, same], [first, other]):
        status, _, err = compare(*runs, "--input", image, "--output", out, *LOW, "--size", 96)
        assert status == 0, err
        left, right = halves(out)
        width = min(left.shape[1], right.shape[1], 96)
        sizes.append(np.abs(left[:64, :width] - right[:64, :width]).mean())
    assert sizes[0] == 0 and sizes[1] > 0


def test_pictures_stand_in_lines(compare, make_run, image, tmp_path):
    first, second = make_run("x/lr=1"), f"run={make_run('y/lr=1')}"
    out = tmp_path / "lines.jpg"
    sizes = {}
    for columns in (1, 3):
        options = ["--output", out, "--size", 96, "--columns", columns, "--confidence-threshold", 1]
        status, _, err = compare(first, second, "--input", *[image] * 3, *options)
        assert status == 0, err
        sizes[columns] = Image.open(out).size
    assert sizes[3] == (3 * sizes[1][0], sizes[1][1] // 3)
    assert sizes[1][0] == 2 * (96 + 8) + 8


def test_what_is_wrong_is_told(compare, make_run, image, tmp_path):
    good, others = make_run("good"), make_run("others", classes=("ant", "bee", "cow"))
    empty = tmp_path / "empty"
    empty.mkdir()
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    out = tmp_path / "out.jpg"
    for runs, shown, target, sentence in (
        ([good, others], image, out, f"{others} and {good} detect different classes"),
        ([good, empty], image, out, str(empty / "config.yaml")),
        ([good], broken, out, str(broken)),
        ([good], image, tmp_path / "out.txt", "out.txt has no suffix of a picture"),
        ([good], image, tmp_path / "out.psd", "out.psd has no suffix of a picture"),
        ([good], image, broken / "out.jpg", f"The folder {broken} cannot be made"),
    ):
        status, _, err = compare(*runs, "--input", shown, "--output", target)
        assert status == 1 and sentence in err, err
        assert not target.exists() and "Traceback" not in err
    linked, before = tmp_path / "linked.png", image.read_bytes()
    linked.symlink_to(image)
    for target in (image, linked):
        told = compare(good, "--input", image, "--output", target)
        assert says(told, f"--output {target} is one of the pictures; choose another --output")
        assert linked.is_symlink() and image.read_bytes() == before
    (tmp_path / "folder.jpg").mkdir()
    with_folder = compare(good, "--input", image, "--output", tmp_path / "folder.jpg")
    assert says(with_folder, "folder.jpg cannot be written", "another --output")
