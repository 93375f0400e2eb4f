"""What a report is made of: sections of text, figures and tables as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Union


@dataclass(frozen=True)
class Text:
    """Paragraphs of plain text; markup is shown, not obeyed, as everywhere in a report."""

    paragraphs: Sequence[str]


@dataclass(frozen=True)
class Facts:
    """Names with their values; ``large`` ones are headline figures, to be seen first."""

    items: Sequence[tuple[str, str]]
    large: bool = False


@dataclass(frozen=True)
class Table:
    """A table of finished text.

    Attributes:
        caption: what it shows.
        headers: one per column.
        rows: cells; the first of a row names it.
        text_columns: how many columns, from the left, hold words; the others hold figures.
        footer: a last row that sums up the others, if any.
    """

    caption: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    text_columns: int = 1
    footer: Sequence[str] | None = None


@dataclass(frozen=True)
class Picture:
    """One picture.

    Attributes:
        data: a PNG, JPEG or SVG file. An SVG's ``currentColor`` becomes the page's text color.
        alt: what it shows, for who cannot see it; not empty.
        label: a short heading above it, or "".
    """

    data: bytes
    alt: str
    label: str = ""


@dataclass(frozen=True)
class Figure:
    """Pictures side by side, as many as there is room for, with one caption.

    Attributes:
        pictures: one or more.
        caption: what a reader should see in them.
        width: least width of a picture in CSS pixels, where the page has that much.
        legend: (name, (red, green, blue)) of what colors mean, 0 to 255.
    """

    pictures: Sequence[Picture]
    caption: str
    width: int = 320
    legend: Sequence[tuple[str, tuple[int, int, int]]] = ()


@dataclass(frozen=True)
class Listing:
    """A long text to be unfolded under a summary, with its line breaks kept."""

    summary: str
    text: str


@dataclass(frozen=True)
class Section:
    """Parts under a heading; a section in a section gets a lower heading."""

    title: str
    parts: Sequence[Part]


Part = Union[Text, Facts, Table, Figure, Listing, Section]
