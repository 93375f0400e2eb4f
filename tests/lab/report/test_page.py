"""The page of a report: whole, self-contained, escaped, written atomically."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path

import numpy as np
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


def test_parts_become_semantic_elements():
    page = check_page(render_report("Title", everything()))
    assert [th["scope"] for th in page.all("th")] == ["col"] * 2 + ["row"] * 2
    assert page.all("td") == [{"class": "number"}] * 2
    assert [a["href"] for a in page.all("a")] == ["#section-1", "#section-2"]
    levels = [tag for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels == ["h1", "h2", "h3", "h2"]
    assert "Nothing" in check_page(render_report("Nothing", [])).text()


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


def luminance(color):
    """Relative luminance of WCAG 2.1."""
    parts = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(first, second):
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_colors_stand_out_on_light_and_dark_paper():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    style = render_report("T", [])
    themes = [dict(re.findall(r"--(\w+): (#\w+)", part)) for part in style.split("@media")[:2]]
    assert [theme["paper"] for theme in themes] == ["#ffffff", "#14181d"]
    inks = re.findall(r"color: (#\w+)", plot().decode())
    for theme, drawn in zip(themes, inks):
        assert contrast(drawn, theme["paper"]) >= 4.5
        for paper in (theme["paper"], theme["sheet"]):
            for ink in ("ink", "quiet", "link"):
                assert contrast(theme[ink], paper) >= 4.5
        assert all(contrast(color, theme["paper"]) >= 3 for color in SERIES)


def test_the_example_of_the_documents(tmp_path, monkeypatch):
    document = Path(__file__).resolve().parents[3] / "docs" / "REPORT.md"
    (program,) = re.findall(r"```python\n(.*?)```", document.read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(program, {})
    page = check_page((tmp_path / "report.html").read_text())
    assert "Higher rates do not help." in page.text() and len(page.plots()) == 1
