"""Pictures: boxes where and in the color they should be, labels only where there is room."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest
import torch
from box_helpers import register_dicts
from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog
from detectron2.structures import Boxes, BoxMode, Instances
from detectron2.utils.events import EventStorage
from model_helpers import small_config
from PIL import Image

from ion_d2.engine import pictures
from ion_d2.engine.drawing import Marks, class_color, draw_panels
from ion_d2.engine.pictures import PictureEvaluator, marks_of, save_pictures
from ion_d2.engine.trainer import IONTrainer
from ion_d2.files import fitting_name

GRAY = np.full((48, 64, 3), 90, np.uint8)  # on a 640 px panel, enlarged 10 times
LEFT, TOP, RIGHT = 8, 36, 8 + 640 + 8  # where the panels start


def instances(boxes, scores, classes, size=(48, 64)):
    return Instances(
        size,
        pred_boxes=Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)),
        scores=torch.tensor(scores, dtype=torch.float32),
        pred_classes=torch.tensor(classes, dtype=torch.int64),
    )


def drawn(*panels, image=GRAY, names=("cell", "dot")):
    return np.asarray(draw_panels(image, [("title", marks) for marks in panels], names))


def panel_of(*args):
    """Pixels of a single panel of the gray image."""
    return drawn(Marks(*args))[TOP : TOP + 480, LEFT : LEFT + 640]


def swatch(color, sheet):
    """Pixels of a color in the legend under the gray image."""
    return (sheet[TOP + 480 :] == color).all(axis=2).sum()


def test_boxes_are_outlined_in_their_class_color_on_both_panels():
    truth = Marks([(10, 10, 20, 30)], [0])
    found = Marks([(30, 5, 40, 9), (10, 10, 20, 30)], [1, 0], [0.9, 0.8])
    sheet = drawn(truth, found)
    for left in (LEFT, RIGHT):
        panel = sheet[TOP : TOP + 480, left : left + 640]
        # Pixels 10 to 19 of the image are 100 to 199 of the panel; two pixels of line at each side.
        assert (panel[300 - 20, [100, 101, 198, 199]] == class_color(0)).all()
        assert (panel[300 - 20, [99, 102, 197, 200]] == 90).all()
        assert (panel[[298, 299], 150] == class_color(0)).all()
        assert (panel[[297, 300], 150] == 90).all()
    other = sheet[TOP + 70, [LEFT + 300, RIGHT + 300]]
    assert other.tolist() == [[90, 90, 90], list(class_color(1))]


def test_colors_of_the_image_are_kept():
    image = np.full_like(GRAY, (200, 10, 60))
    assert drawn(Marks([], []), image=image)[TOP + 100, LEFT + 100].tolist() == [200, 10, 60]


@pytest.mark.parametrize("shape", [(48, 64), (240, 240), (1200, 900), (3, 1000), (1, 1)])
def test_any_size_comes_to_the_size_of_a_panel(shape):
    sheet = drawn(Marks([], []), Marks([], [], []), image=np.zeros((*shape, 3), np.uint8))
    scale = 640 / max(shape)
    assert sheet.shape[1] == 2 * max(1, round(shape[1] * scale)) + 3 * 8
    assert sheet.shape[0] > max(1, round(shape[0] * scale))


def test_small_boxes_carry_no_label_and_large_ones_do():
    def colored_inside(box):
        x0, y0, x1, y1 = (round(10 * v) for v in box)
        inside = panel_of([box], [0])[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2]
        return (inside != 90).any(axis=2).mean()

    assert colored_inside((20, 20, 24, 24)) == 0  # no room for the word
    assert colored_inside((5, 20, 60, 25)) == 0  # too flat: the label would hide a third of it
    assert 0 < colored_inside((10, 10, 30, 30)) < 0.1


def test_labels_do_not_hide_each_other():
    box = (10, 10, 40, 40)
    panel = panel_of([box, box], [0, 1], [0.6, 0.9])
    # The surest, drawn last, is labeled at the top, the other at the bottom.
    assert (panel[100:118, 100:160] == class_color(1)).all(axis=2).mean() > 0.5
    assert (panel[382:399, 102:160] == class_color(0)).all(axis=2).mean() > 0.4
    third = drawn(Marks([box] * 3, [0, 1, 0], [0.1, 0.6, 0.9]))
    assert third.shape == drawn(Marks([box], [0])).shape


def test_boxes_outside_the_image_or_without_extent_are_drawn_at_its_border():
    panel = panel_of([(-50, -50, -10, -10), (70, 50, 99, 99), (5, 5, 5, 5)], [0, 1, 0])
    assert tuple(panel[0, 0]) == class_color(0) and tuple(panel[-1, -1]) == class_color(1)
    assert tuple(panel[50, 50]) == class_color(0)


def test_legend_explains_each_class_once_also_those_without_a_name():
    for color, classes, count in ((1, [1, 1], 1), (0, [1, 1], 0), (7, [7, 1], 1)):
        sheet = drawn(Marks([], []), Marks([(0, 0, 9, 9)] * len(classes), classes))
        assert swatch(class_color(color), sheet) == count * 20 * 20


def test_long_legends_go_on_in_a_new_line():
    names = [f"a rather long name of class {k}" for k in range(20)]
    sheet = drawn(Marks([(0, 0, 9, 9)] * 20, list(range(20))), names=names)
    assert all(swatch(class_color(k), sheet) == 20 * 20 for k in range(20))


def test_long_titles_and_names_stay_where_they_belong():
    image, name = np.zeros((24, 10, 3), np.uint8), "a rather long name of a class of bottles"
    marks = Marks([(0, 0, 5, 5)], [0])
    sheet = np.asarray(draw_panels(image, [(name, marks), (name, marks)], [name], panel_size=240))
    panel = 100  # pixels wide, with 8 around it
    assert (sheet[:36, 8 + panel : 16 + panel] == 255).all() and (sheet[:, -8:] == 255).all()
    first, second = (sheet[:30, x : x + panel] for x in (8, 16 + panel))
    assert (first < 255).any() and np.array_equal(first, second)


def test_colors_are_distinct():
    colors = np.array([class_color(k) for k in range(30)], dtype=int)
    distance = np.abs(colors[:, None] - colors[None]).sum(axis=2) + 1000 * np.eye(30, dtype=int)
    assert distance[:12, :12].min() >= 90
    assert distance.min() > 0
    assert class_color(5) == class_color(5)


def test_marks_are_those_above_the_threshold_surest_last():
    boxes = [[0, 0, 1, 1], [0, 0, 2, 2], [0, 0, 3, 3]]
    marks = marks_of(instances(boxes, [0.9, 0.49, 0.5], [0, 1, 2]), 0.5)
    assert marks.boxes == [[0, 0, 3, 3], [0, 0, 1, 1]]
    assert marks.classes == [2, 0] and marks.scores == pytest.approx([0.5, 0.9])


def record(tmp_path, name="a.png"):
    Image.fromarray(GRAY).save(tmp_path / name)
    annotation = {"bbox": [10, 10, 10, 20], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}
    return {"file_name": str(tmp_path / name), "annotations": [annotation]}


def test_truth_is_left_and_detections_right(tmp_path):
    metadata = Metadata(thing_classes=["cell"])
    found = instances([[40, 10, 50, 30], [1, 1, 5, 5]], [0.9, 0.2], [0, 0])
    (path,) = save_pictures([record(tmp_path)], [found], metadata, tmp_path / "new/folder")
    assert path == tmp_path / "new/folder/00_a.jpg"
    sheet = np.asarray(Image.open(path)).astype(int)
    row = sheet[TOP + 280]
    is_line = np.abs(row - class_color(0)).sum(axis=1) < 60  # JPEG is not exact
    expected = [start + x for start in (LEFT + 100, RIGHT + 400) for x in (0, 1, 98, 99)]
    assert is_line.nonzero()[0].tolist() == expected
    assert (np.abs(sheet[TOP + 30, RIGHT + 10 : RIGHT + 50] - 90).sum(axis=1) < 20).all()


def test_pictures_of_the_same_name_do_not_replace_each_other(tmp_path):
    (tmp_path / "b").mkdir()
    dicts = [record(tmp_path), record(tmp_path / "b")]
    dicts[1].pop("annotations")
    paths = save_pictures(dicts, [instances([], [], [])] * 2, Metadata(), tmp_path / "out")
    assert len(set(paths)) == 2 and all(path.is_file() for path in paths)


def fail(monkeypatch, error):
    def failing(*_args):
        monkeypatch.undo()  # only the first picture's fails
        raise error

    monkeypatch.setattr(pictures, "save_picture", failing)


NOTHING = instances([], [], [])
NOT_ALLOWED, REFUSED = PermissionError(errno.EACCES, "Permission denied"), ValueError("two\nlines")
FAULTS = {
    "unreadable": lambda path, monkeypatch: path.write_bytes(b"not a picture"),
    "gone": lambda path, monkeypatch: path.unlink(),
    "may not be written": lambda path, monkeypatch: fail(monkeypatch, NOT_ALLOWED),
    "refused by Pillow": lambda path, monkeypatch: fail(monkeypatch, REFUSED),
    "folder is a file": lambda path, monkeypatch: (path.parent / "out").write_text(""),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_picture_that_cannot_be_drawn_is_a_warning(fault, tmp_path, monkeypatch, caplog):
    dicts = [record(tmp_path, "broken.png"), record(tmp_path, "whole.png")]
    FAULTS[fault](tmp_path / "broken.png", monkeypatch)
    paths = save_pictures(dicts, [NOTHING] * 2, Metadata(), tmp_path / "out")
    expected = [] if fault == "folder is a file" else [tmp_path / "out/01_whole.jpg"]
    assert paths == expected
    told = [each.getMessage() for each in caplog.records]
    assert len(told) == 2 - len(expected) and "broken.png" in told[0] and "\n" not in told[0]


@pytest.mark.parametrize("box", [(float("nan"), 0, 1, 1), (0, 0, float("inf"), 1)])
def test_boxes_that_are_no_numbers_are_a_warning(box, tmp_path, caplog):
    found = instances([box], [0.9], [0])
    assert save_pictures([record(tmp_path)], [found], Metadata(), tmp_path / "out") == []
    assert "a.png" in caplog.text


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
def test_a_full_disk_is_told(tmp_path):
    (tmp_path / "00_a.jpg.tmp").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as full:
        save_pictures([record(tmp_path)], [NOTHING], Metadata(), tmp_path)
    assert full.value.errno == errno.ENOSPC and full.value.filename.endswith("00_a.jpg")


STEMS = [
    "猫" * 83 + "aa", "é" * 125, "e\u0301" * 83, "😀" * 62 + "abc", "a" * 251, "a\n" * 125,
    "'\"" * 125, "%s" * 125, "#" * 251, os.fsdecode(b"\xff" * 251),
]  # fmt: skip


def test_names_fit_and_stay_distinct():
    for stem in STEMS:
        names = [fitting_name(stem[:-1] + end, prefix="00_", suffix="_2.jpg") for end in "xy"]
        assert len(set(names)) == 2
        for name in names:
            assert 255 - 4 < len(os.fsencode(name)) <= 255, stem
            assert name.startswith("00_" + stem[:9]) and name.endswith("_2.jpg")
    for stem in ("", "a", "a\n'%#猫", "a" * 251):
        assert fitting_name(stem, suffix=".jpg") == f"{stem}.jpg"


@pytest.mark.parametrize("stem", STEMS[:-1], ids=ascii)
def test_pictures_of_long_names(stem, tmp_path):
    chosen = record(tmp_path, f"{stem}.png" if len(os.fsencode(stem)) < 252 else f"{stem[:-9]}.png")
    (path,) = save_pictures([chosen], [NOTHING], Metadata(), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == [path]


@pytest.fixture
def dataset(tmp_path):
    """A registered dataset of three pictures with odd names, of which one is gone."""
    names = ["a\n'%#猫.png", "gone.png", "猫" * 83 + "a.png"]
    dicts = [{**record(tmp_path, name), "image_id": k} for k, name in enumerate(names)]
    (tmp_path / "gone.png").unlink()
    DatasetCatalog.register("pictures_test", lambda: dicts)
    yield "pictures_test"
    DatasetCatalog.remove("pictures_test")


@pytest.mark.parametrize("lost", [False, True])
def test_an_evaluation_goes_on_without_a_picture(dataset, lost, tmp_path, monkeypatch, caplog):
    dicts, metadata = DatasetCatalog.get(dataset), MetadataCatalog.get(dataset)
    evaluator = PictureEvaluator(dicts, metadata, str(tmp_path / "out"))
    evaluator.process([{"image_id": k} for k in range(3)], [{"instances": NOTHING}] * 3)
    if lost:  # a written picture cannot be read for TensorBoard
        monkeypatch.setattr(pictures, "save_picture", lambda _sheet, path: path.write_bytes(b""))
    with EventStorage() as storage:
        assert evaluator.evaluate() is None
    shown = [name for name, *_ in storage._vis_data]
    assert len(shown) == (0 if lost else 2) and all(len(x.encode()) < 120 for x in shown)
    assert len(list((tmp_path / "out").iterdir())) == 2
    told = [x.getMessage() for x in caplog.records if x.levelname == "WARNING"]
    assert len(told) == (3 if lost else 1) and "gone.png" in told[0]


def test_pictures_that_are_left_out_are_not_chosen(tmp_path, catalogs):
    size = {"height": 48, "width": 64}
    dicts = [{**record(tmp_path, f"{k}.png"), "image_id": k, **size} for k in range(3)]
    (tmp_path / "2.png").write_bytes(b"broken")
    register_dicts("mine", dicts, thing_classes=["cat"])
    opts = ("INPUT.SKIP_UNREADABLE", True, "TEST.NUM_PICTURES", 2, "DATASETS.TEST", ("mine",))
    _, drawing = IONTrainer.build_evaluator(small_config(*opts), "mine")._evaluators
    assert list(drawing._chosen) == [0, 1]
