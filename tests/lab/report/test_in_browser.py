"""Reports in headless Chromium: sizes of a desk and of a phone, light and dark, no network."""

from __future__ import annotations

import io

import numpy as np
import pytest
from headless_browser import CHROMIUM, Browser
from PIL import Image
from test_page import everything

from ion_lab.report import Figure, Listing, Picture, Section, Table, lines_plot, write_report
from ion_lab.report.heatmap import heat_map

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

# Widths beyond which a page would scroll sideways come from these.
WIDE_TABLE = Table("A wide table.", ["a"] + ["a long header"] * 14, [["x" * 60] + ["123.4"] * 14])
LONG_WORD = "voc:" + "/a-very-long-folder-name-without-any-space" * 4
# Parts of elements that stand out of the window, without those that scroll in a part of their own.
OVERFLOW = """
[...document.querySelectorAll('body *')].filter(e =>
    !e.closest('.scroll *')
    && e.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5)
  .map(e => e.tagName + '.' + e.className)
"""

# How much plots are enlarged or shrunk.
ZOOMS = """
[...document.querySelectorAll('img[src^="data:image/svg"]')].map(
    plot => plot.getBoundingClientRect().width / plot.naturalWidth)
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    plots = [lines_plot([], "x", "y").svg(), heat_map(np.eye(20), zoom=30)]
    extra = [
        WIDE_TABLE,
        Figure([Picture(data, "x", LONG_WORD) for data in plots], LONG_WORD),
        Listing("A long line", "y" * 500),
    ]
    path = tmp_path_factory.mktemp("page") / "report.html"
    sections = [*everything(LONG_WORD), *everything(), Section("Wide", extra)]
    write_report(path, "A report " + LONG_WORD, sections, lead=LONG_WORD)
    return path.as_uri()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)], ids=["desk", "phone"])
def test_a_report_fits_and_is_legible(browser, address, width, height, theme):
    browser.open(address, width, height, theme)
    browser.value("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.value("document.documentElement.scrollWidth") == width
    assert browser.value(OVERFLOW) == []
    assert browser.value("document.querySelector('.scroll').scrollWidth") > 0
    wide = "[...document.querySelectorAll('.scroll')].some(e => e.scrollWidth > e.clientWidth)"
    assert browser.value(wide)  # the wide table scrolls in its own place
    # The text of plots, of 11 pixels and more, is not shrunk out of sight.
    zooms = browser.value(ZOOMS)
    assert zooms and all(9 / 11 <= zoom <= 1.001 for zoom in zooms)
    _check_picture(browser.screenshot(), width, theme)
    assert [url for url in browser.requests() if not url.startswith("data:")] == [address]
    assert not [e for e in browser.events if e["method"] == "Runtime.exceptionThrown"]


def _check_picture(data, width, theme):
    image = np.asarray(Image.open(io.BytesIO(data)).convert("L")).astype(int)
    assert image.shape[1] == width and image.shape[0] > 1500
    paper = {"light": 255, "dark": 24}[theme]
    share = (abs(image - paper) > 40).mean()
    assert 0.01 < share < 0.7, "the page is blank, or is not the theme's"
    # Something is drawn all over the page, not at its top alone.
    for part in np.array_split(image, 6):
        assert part.std() > 3
