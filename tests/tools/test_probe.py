"""tools/probe.py: what a linear classifier reads of features in boxes."""

import numpy as np
import pytest
import torch
from cli_helpers import load_tool
from PIL import Image
from voc_folder import annotation_xml, object_xml, write_split

from ion_d2 import IONError


@pytest.fixture
def two_colors(tmp_path):
    """17 pictures with a red object on one side and a blue one on the other; the last has one."""
    colors = {"red": (255, 0, 0), "blue": (0, 0, 255)}
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "classes.txt").write_text("red\nblue\n")
    for number in range(17):
        left, right = list(colors)[:: 1 - 2 * (number % 2)]
        pixels = np.zeros((128, 256, 3), np.uint8)
        pixels[:, :128], pixels[:, 128:] = colors[left], colors[right]
        Image.fromarray(pixels).save(tmp_path / f"JPEGImages/{number}.png")
        objects = [object_xml(name, (x, 40, x + 40, 90)) for name, x in ((left, 44), (right, 172))]
        xml = annotation_xml(objects[: 1 if number == 16 else 2], (256, 128))
        (tmp_path / f"Annotations/{number}.xml").write_text(xml)
    for split, numbers in (
        ("train", range(12)),
        ("test", range(12, 16)),
        ("one", (16,)),
        ("empty", ()),
    ):
        write_split(tmp_path, split, "\n".join(map(str, numbers)) + "\n")
    return tmp_path


def run(folder, *opts, flags=(), train="train", config="configs/ion_tiny.yaml"):
    data = [
        "DATASETS.TRAIN",
        f"('voc:{folder}:{train}',)",
        "DATASETS.TEST",
        f"('voc:{folder}:test',)",
    ]
    sizes = ["INPUT.MIN_SIZE_TEST", "128", "MODEL.ROI_HEADS.NUM_CLASSES", "0"]
    load_tool("probe").main([*flags, "--config-file", config, *data, *sizes, *opts])


def test_a_box_tells_its_color_and_the_picture_does_not(two_colors, capsys):
    run(two_colors)
    first, *lines = capsys.readouterr().out.splitlines()
    # All boxes are of 41 x 51 pixels.
    assert first == "24 boxes to train on, 8 to judge by (0 small, 8 medium, 0 large)."
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]
    right = {name: float(percent) for name, percent, *_ in cells}
    assert right["conv3"] == right["conv5"] == 100
    assert cells[0][4:] == ["nan", cells[0][1], "nan"]
    # Both objects of a picture see the same.
    assert right["the picture"] == 50
    inside = "conv3 + conv4 + conv5"
    assert list(right)[-3:] == [inside, f"{inside} + the picture", f"{inside} + context"]


def test_figures_are_those_of_a_known_distribution():
    """Two normal clouds at 1 and -1 on the second axis: Phi(1) = 84.1 % of the boxes are right."""
    torch.manual_seed(0)
    noise, classes = torch.randn(6000), torch.randint(0, 2, (6000,))
    # Angles on the unit circle keep their order when normalized to length 1.
    angle = 0.01 * (noise + 2 * classes - 1)
    told = {"a": torch.stack([angle.cos(), angle.sin()], 1), "nothing": torch.randn(6000, 2)}
    probe = load_tool("probe")
    areas = torch.tensor([31.0**2, 33.0**2, 97.0**2]).repeat(1000)
    halves = [
        probe.Described({n: x[half] for n, x in told.items()}, classes[half], areas)
        for half in (slice(3000), slice(3000, None))
    ]
    right, error, likelihood, *sizes = probe.judge(*halves, ["a"], 2)
    assert sum(sizes) / 3 == pytest.approx(right, abs=1e-3) and len(set(sizes)) == 3
    assert error == pytest.approx(100 * (0.841 * 0.159 / 3000) ** 0.5, rel=0.05)
    assert abs(right - 84.1) < 4 * error and 0.34 < likelihood < 0.40
    right, error, likelihood, *_ = probe.judge(*halves, ["nothing"], 2)
    assert abs(right - 50) < 4 * error and likelihood == pytest.approx(np.log(2), abs=0.01)


def test_sets_and_models_that_cannot_be_probed(two_colors):
    retina = "model_zoo:COCO-Detection/retinanet_R_50_FPN_1x.yaml"
    with pytest.raises(
        IONError, match="IN_FEATURES names 'res4', but the backbone returns only p3, p4"
    ):
        run(two_colors, "MODEL.WEIGHTS", "", "MODEL.RETINANET.NUM_CLASSES", "0", config=retina)
    with pytest.raises(IONError, match="empty"):
        run(two_colors, train="empty")
    with pytest.raises(IONError, match="1 boxes in voc:.*one; name sets with more"):
        run(two_colors, train="one")


def test_as_many_boxes_as_asked_for_and_the_deepest_feature_in_any_order(two_colors, capsys):
    features = ["MODEL.ROI_HEADS.IN_FEATURES", "['conv5','conv4','context']"]
    run(two_colors, *features, flags=["--boxes", "11"])
    out = capsys.readouterr().out
    assert out.startswith("11 boxes to train on, 8 to judge by")
    assert "| conv5 + the picture " in out and "| conv4 + the picture" not in out
