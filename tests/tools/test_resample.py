"""tools/resample.py: differences between runs, and their standard errors."""

import json
from pathlib import Path

import pytest
from cli_helpers import load_tool
from voc_folder import object_xml, write_voc

from ion_d2 import IONError

BOX = [10.0, 10.0, 30.0, 30.0]
PICTURES = 100


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A set in VOC layout: one box in each picture."""
    ball = object_xml("ball", (11, 11, 30, 30))
    folder = tmp_path_factory.mktemp("data")
    (folder / "classes.txt").write_text("ball\n")
    return write_voc(folder, {str(number): [ball] for number in range(PICTURES)}, "test")


def run(folder, pictures, found):
    """The folder of an evaluation that has found the ball in these pictures."""
    folder.mkdir(parents=True)
    text = f"_BASE_: '{Path('configs/ion_tiny.yaml').resolve()}'\n"
    text += (
        f"DATASETS: {{TEST: ['voc:{pictures}:test']}}\nMODEL: {{ROI_HEADS: {{NUM_CLASSES: 0}}}}\n"
    )
    (folder / "config.yaml").write_text(text)
    entries = [
        {"image_id": str(number), "category": "ball", "bbox": BOX, "score": 0.9} for number in found
    ]
    (folder / "detections.json").write_text(json.dumps(entries))
    return folder


def rows(capsys, *words):
    load_tool("resample").main(list(map(str, words)))
    lines = capsys.readouterr().out.splitlines()[2:]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def test_the_error_is_that_of_a_share(pictures, tmp_path, capsys):
    """Half of 100 pictures: AP is the share found, whose error is sqrt(0.5 * 0.5 / 100) = 5 %."""
    every = run(tmp_path / "all", pictures, range(PICTURES))
    half = run(tmp_path / "half", pictures, range(0, PICTURES, 2))
    first, second = rows(capsys, every, half)
    assert first == ["all", "100.00", "", "", "100.00", "", ""]
    name, ap, difference, error, *_ = second
    # COCO looks at recalls of 0, 0.01, ..., 1: 51 of these 101 are reached.
    assert (name, float(ap)) == ("half", pytest.approx(100 * 51 / 101, abs=0.01))
    assert float(difference) == pytest.approx(float(ap) - 100, abs=0.01)
    assert float(error) == pytest.approx(5, rel=0.15)


def test_what_all_draws_share_is_certain(pictures, tmp_path, capsys):
    a, b = (run(tmp_path / name, pictures, range(40)) for name in "ab")
    assert rows(capsys, a, b, "--draws", 20)[1][2:4] == ["0.00", "0.00"]
    c = run(tmp_path / "c" / "a", pictures, range(40))
    assert [row[0] for row in rows(capsys, a, c, "--draws", 2)] == [str(a), str(c)]


def test_draws_without_an_object_are_drawn_anew(tmp_path, capsys):
    ball, folder = object_xml("ball", (11, 11, 30, 30)), tmp_path / "data"
    folder.mkdir()
    (folder / "classes.txt").write_text("ball\n")
    objects = {str(number): [] for number in range(1, 6)}
    pictures = write_voc(folder, {"0": [ball], **objects}, "test")
    a, b = (run(tmp_path / name, pictures, found) for name, found in (("a", [0]), ("b", [])))
    assert rows(capsys, a, b)[1] == ["b", "0.00", "-100.00", "0.00", "0.00", "-100.00", "0.00"]
    pictures = write_voc(tmp_path / "none", objects, "test")
    (tmp_path / "none/classes.txt").write_text("ball\n")
    empty = [run(tmp_path / "empty" / name, pictures, []) for name in "ab"]
    with pytest.raises(IONError, match="No picture of .* has an object to judge by"):
        rows(capsys, *empty)


def test_folders_that_are_called_like_numbers(pictures, tmp_path, capsys, monkeypatch):
    names = ["2016", "0.001", "1e3"]
    for name in names:
        run(tmp_path / name, pictures, range(3))
    monkeypatch.chdir(tmp_path)
    assert [row[0] for row in rows(capsys, *names, "--draws", 2)] == names


def test_runs_that_cannot_be_compared(pictures, tmp_path):
    main = load_tool("resample").main
    good = str(run(tmp_path / "good", pictures, range(3)))
    with pytest.raises(IONError, match="two runs or more"):
        main([good])
    with pytest.raises(IONError, match="has no config.yaml"):
        main([good, str(tmp_path)])
    untested = run(tmp_path / "untested", pictures, ())
    (untested / "detections.json").unlink()
    with pytest.raises(IONError, match="has no detections on labels of voc:.*--eval-only"):
        main([good, str(untested)])
    broken = run(tmp_path / "broken", pictures, ())
    (broken / "detections.json").write_text("[")
    with pytest.raises(IONError, match="broken/detections.json"):
        main([good, str(broken)])
