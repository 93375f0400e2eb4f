"""What every report must fulfil, read off its HTML."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser

_VOID = {"meta", "img", "br", "hr", "input", "link"}
# Attributes from which a browser fetches something.
_FETCHED = ("src", "srcset", "poster", "background", "action", "formaction")


class Page(HTMLParser):
    """The elements and texts of a page."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self.open = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self):
        return " ".join(data for tag, data in self.texts if tag not in ("style", "pre"))

    def drawn_text(self):
        """All plots as SVG sources."""
        data = [it["src"].partition("base64,")[2] for it in self.plots()]
        return " ".join(base64.b64decode(each).decode() for each in data)

    def plots(self):
        return [it for it in self.all("img") if it["src"].startswith("data:image/svg")]

    def pictures(self):
        return [it for it in self.all("img") if it not in self.plots()]


def check_page(text):
    """Assert that a page is whole, self-contained and describes its pictures; return it."""
    assert text.lstrip().lower().startswith("<!doctype html>")
    page = Page(text)
    assert not page.open
    _check_self_contained(page, text)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {link["href"].lstrip("#") for link in page.all("a")} <= set(ids)
    for picture in page.all("img"):
        assert picture["alt"].strip() and int(picture["width"]) and int(picture["height"])
    return page


def _check_self_contained(page, text):
    assert not [name for name, _ in page.elements if name in ("script", "link", "iframe", "base")]
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")]
        for name in _FETCHED:
            assert attributes.get(name, "data:image/").startswith(("data:image/", "#"))
        assert attributes.get("href", "#").startswith("#")
        for reference in re.findall(r"url\(([^)]*)\)", str(attributes)):
            assert reference.startswith("#")
    styles = "".join(data for tag, data in page.texts if tag == "style")
    assert styles and "url(" not in styles and "@import" not in styles
