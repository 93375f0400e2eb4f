"""The page of tools/check_dataset.py: the boxes that it draws, and names that are no text."""

import io
import json
import os
import sys

import pytest
from cli_helpers import load_tool
from conversions import yolo_of
from dataset_checks import SIZE, check
from voc_folder import write_image

from ion_d2.engine.setup import run_cli


def boxes_of(folder, name, *boxes):
    """A set in COCO's format of the picture a.png, with boxes of x, y, width, height."""
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": SIZE[0], "height": SIZE[1]}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 1, "bbox": box} for i, box in enumerate(boxes)
        ],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (folder / name).write_text(json.dumps(content))
    return f"coco:{folder}/{name}:{folder}"


def test_a_picture_of_two_sets_is_drawn_with_the_boxes_of_the_findings_own(tmp_path, monkeypatch):
    drawn = drawn_boxes(monkeypatch)
    write_image(tmp_path / "a.png", SIZE)
    first = boxes_of(tmp_path, "a.json", [5, 5, 30, 30], [40, 8, 2, 30])
    names = [first, boxes_of(tmp_path, "b.json", [60, 5, 30, 30])]
    for both in (names, names[::-1]):
        drawn.clear()
        places = check(tmp_path, *both, "--html", tmp_path / "found.html")[2]
        assert list(places) == ["leak", "box-tiny"]
        assert [(40, 8, 42, 38)] in drawn


def drawn_boxes(monkeypatch):
    """The boxes of each picture that a page will draw."""
    drawn, page = [], load_tool("dataset_page")
    monkeypatch.setitem(sys.modules, "dataset_page", page)
    draw = page.draw_panel

    def noted(image, marks, *options):
        drawn.append(marks.boxes)
        return draw(image, marks, *options)

    monkeypatch.setattr(page, "draw_panel", noted)
    return drawn


@pytest.mark.parametrize("other", ["a", "z"])  # before and after in the list
def test_two_files_of_labelme_of_one_picture(tmp_path, monkeypatch, other):
    drawn, folder = drawn_boxes(monkeypatch), tmp_path / "labels"
    folder.mkdir()
    write_image(folder / "a.png", SIZE)
    tiny = [[5, 5], [7, 35]], [[50, 5], [52, 35]]
    for name, objects in ((other, [[[5, 5], [35, 35]]]), ("a_old", tiny)):
        shapes = [{"label": "cat", "shape_type": "rectangle", "points": pair} for pair in objects]
        content = {"shapes": shapes, "imagePath": "a.png"}
        (folder / f"{name}.json").write_text(json.dumps(content))
    places = check(tmp_path, f"labelme:{folder}", "--html", tmp_path / "found.html")[2]
    assert len(places["box-tiny"]) == 2 and "listed-twice" in places
    assert [(5, 5, 7, 35)] in drawn and [(50, 5, 52, 35)] in drawn


@pytest.mark.skipif(sys.platform != "linux", reason="other systems' names are text")
def test_names_that_are_no_text_are_written_all_the_same(tmp_path, monkeypatch, catalogs):
    pictures, box = [os.fsdecode(b"caf\xe9.jpg")], "0 0.5 0.5 0.02 0.5"
    name = yolo_of(tmp_path, ["cat"], box, pictures=pictures, size=SIZE)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "utf-8"))
    options = [name, "--html", f"{tmp_path}/found.html"]
    with pytest.raises(SystemExit, match="0"):
        run_cli(lambda: load_tool("check_dataset").main(options))
    sys.stdout.flush()
    assert b"caf\\udce9.jpg" in sys.stdout.buffer.getvalue()
    assert "caf\\udce9.jpg" in (tmp_path / "found.html").read_text()
