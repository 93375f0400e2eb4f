"""Names of classes in drawings, in any writing: by a font that has their signs, or as numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from detectron2.utils import logger

from ion_d2.engine import drawing
from ion_d2.engine.drawing import Marks, draw_panel, draw_panels

GRAY = np.full((48, 64, 3), 90, np.uint8)


def drawn(marks, names):
    return np.asarray(draw_panels(GRAY, [("title", marks)], names))


@pytest.fixture
def bare(monkeypatch):
    """A machine that has Matplotlib's own font only."""
    monkeypatch.setattr(drawing, "_other_fonts", list)
    logger._LOG_COUNTER.clear()
    drawing._font_file.cache_clear()
    yield
    drawing._font_file.cache_clear()


BIG = Marks([(0, 0, 60, 40)], [0], [0.9])


@pytest.mark.parametrize("name", ["交通灯", "しんごう", "신호등", "แมว", "बिल्ली", "cat 猫"])
def test_names_that_no_font_has_appear_as_numbers(name, bare, caplog):
    assert (drawn(BIG, names=[name]) == drawn(BIG, names=["class 0"])).all()
    panels = [np.asarray(draw_panel(GRAY, BIG, {0: each})) for each in (name, "class 0")]
    assert (panels[0] == panels[1]).all()
    assert [name in each.getMessage() for each in caplog.records] == [True]


def test_one_warning_names_all_that_no_font_has(bare, caplog):
    for _ in range(2):
        drawn(BIG, names=["cat", "猫", "แมว"])
    (told,) = caplog.records
    assert "猫" in told.getMessage() and "แมว" in told.getMessage()


@pytest.mark.parametrize("name", ["cat", "Löwe", "кот", "γάτα", "a\u200db", "naïve œuf"])
def test_names_of_the_usual_font_keep_it(name, bare, caplog):
    assert drawing._font(name, 20).getname()[0] == "DejaVu Sans"
    assert (drawn(BIG, names=[name]) != drawn(BIG, names=["class 0"])).any()
    assert not caplog.records


def test_another_font_is_taken_where_the_usual_one_lacks_a_sign(bare, monkeypatch, caplog):
    other = str(Path(drawing._FONT).with_name("STIXGeneral.ttf"))
    monkeypatch.setattr(drawing, "_other_fonts", lambda: ("missing.ttf", other))
    sign = min(drawing._signs(other) - drawing._signs(drawing._FONT))
    assert drawing._font(chr(sign), 20).getname()[0] == "STIXGeneral"
    drawn(BIG, names=[chr(sign)])
    assert not caplog.records


def test_fonts_of_placeholders_are_not_taken():
    assert not [file for file in drawing._other_fonts() if "LastResort" in file]


def test_a_line_break_in_a_class_name_is_drawn_as_a_space():
    assert (drawn(BIG, names=["a\nb"]) == drawn(BIG, names=["a b"])).all()
