"""The page of a report: whole, self-contained, escaped, written atomically."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path

import pytest
from page_checks import check_page
from PIL import Image

from ion_d2.errors import IONError
from ion_lab.report import (
    Facts,
    Figure,
    Line,
    Listing,
    Picture,
    Section,
    Table,
    Text,
    lines_plot,
    render_report,
    write_report,
)
from ion_lab.report.charts import SERIES

NASTY = "<b>&\"'</b></script><img src=http://x.example/a.png onerror=alert(1)> {{ 1 }} {% x %} $a$"


def picture_file(kind="PNG", mode="RGB"):
    file = io.BytesIO()
    Image.new(mode, (30, 20)).save(file, kind)
    return file.getvalue()


def plot(name="loss"):
    line = Line(name, [0, 1, 2], [3.0, 2.0, 1.0], mark=1)
    return lines_plot([line], "x", "y", markers=True).svg()


def everything(text="plain"):
    figure = Figure(
        [Picture(plot(text), text, text), Picture(plot(), text), Picture(picture_file(), text)],
        text,
        legend=[(text, (1, 2, 3))],
    )
    table = Table(text, [text, text], [[text, text]], footer=[text, text])
    parts = [Text([text, text]), Facts([(text, text)]), table, figure, Listing(text, text)]
    return [Section(text, [*parts, Section(text, [figure])]), Section("B", [])]


def test_any_text_is_shown_as_it_is_and_equal_content_gives_equal_files():
    text = render_report(NASTY, everything(NASTY), lead=NASTY)
    assert text == render_report(NASTY, everything(NASTY), lead=NASTY)
    page = check_page(text)
    shown = page.text() + " ".join(data for tag, data in page.texts if tag == "pre")
    # title, h1, lead, contents; heading, 2 paragraphs, 2 facts, caption, 6 cells, 2 of the listing;
    # a label, a legend entry and a caption in each of two figures.
    assert shown.count(NASTY) == 4 + 1 + 2 + 2 + 1 + 6 + 2 + 1 + 2 * 3
    assert [picture["alt"] for picture in page.all("img")] == [NASTY] * 6
    assert not page.all("b")


def test_what_is_wide_scrolls_in_a_place_of_its_own_or_shrinks():
    page = check_page(text := render_report("T", everything()))
    assert ".scroll { overflow-x: auto; }" in text and 'svg"] { width: auto; max-width' in text
    places = [it.get("class") for it in page.all("div") + page.all("pre")].count("scroll")
    assert places == len(page.all("table")) + len(page.all("pre")) == 2


def test_plots_have_the_ink_of_the_paper_and_the_colors_of_the_series():
    drawn = plot().decode()
    assert drawn.count("currentColor") > 10 and "#010203" not in drawn
    own = set(re.findall(r"(?:fill|stroke): (#\w+)", drawn))
    assert own and own <= set(SERIES)


@pytest.mark.parametrize("data", [b"GIF89a", picture_file("GIF", "P"), b"<html/>", b"<svg"])
def test_pictures_of_other_kinds_are_refused(data):
    with pytest.raises(ValueError, match="neither PNG nor JPEG nor SVG"):
        render_report("T", [Section("A", [Figure([Picture(data, "x")], "y")])])


def test_pictures_keep_their_data_and_need_a_description(tmp_path):
    with pytest.raises(ValueError, match="description"):
        render_report("T", [Section("A", [Figure([Picture(picture_file(), " ")], "y")])])
    path = tmp_path / "new" / "report.html"
    write_report(path, "T", [Section("A", [Figure([Picture(picture_file("JPEG"), "x")], "y")])])
    (image,) = check_page(path.read_text(encoding="utf-8")).all("img")
    assert image["src"].startswith("data:image/jpeg;base64,")
    assert (image["width"], image["height"]) == ("30", "20")


def test_a_failed_write_keeps_the_old_report(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(IONError, match="report.html cannot be written .No space left on device"):
        write_report(path, "T", [])
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_the_example_of_the_documents(tmp_path, monkeypatch):
    document = Path(__file__).resolve().parents[3] / "docs" / "REPORT.md"
    (program,) = re.findall(r"```python\n(.*?)```", document.read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(program, {})
    page = check_page((tmp_path / "report.html").read_text())
    assert "Higher rates do not help." in page.text() and len(page.plots()) == 1
