"""Sections rendered as one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Sequence

from defusedxml import ElementTree
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from ion_d2.evaluation.results_file import write_text

from .document import Picture, Section

_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg"}


def write_report(
    path: str | os.PathLike[str], title: str, sections: Sequence[Section], *, lead: str = ""
) -> None:
    """Write a report as one HTML file, which opens without a network and holds no scripts.

    The file is complete or not there at every moment; a folder that is missing is made.

    Args:
        path: the file.
        title: of the page.
        sections: what it holds, in order.
        lead: a sentence below the title.

    Raises:
        IONError: the file cannot be written.
        ValueError: a picture is neither a PNG nor a JPEG nor an SVG file, or lacks a description.
    """
    write_text(os.fspath(path), render_report(title, sections, lead=lead))


def render_report(title: str, sections: Sequence[Section], *, lead: str = "") -> str:
    """A report as an HTML page; see :func:`write_report`."""
    environment = Environment(
        loader=PackageLoader("ion_lab.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["kind"] = lambda part: type(part).__name__
    environment.filters["embed"] = embed
    page = environment.get_template("page.html")
    return page.render(title=title, lead=lead, sections=sections)


def embed(picture: Picture) -> str:
    """Make a picture an ``<img>`` with its data; as one, an SVG file runs and fetches nothing.

    Raises:
        ValueError: the data is of another kind, or there is no description.
    """
    if not picture.alt.strip():
        raise ValueError(f"picture {picture.label!r} needs a description (alt)")
    try:
        kind, (width, height) = _kind_and_size(picture.data)
    except (OSError, KeyError, ElementTree.ParseError) as error:
        raise ValueError(f"picture {picture.label!r} is neither PNG nor JPEG nor SVG") from error
    source = f"data:{kind};base64,{base64.b64encode(picture.data).decode()}"
    alt = html.escape(picture.alt)
    return f'<img src="{source}" alt="{alt}" width="{width}" height="{height}">'


def _kind_and_size(data: bytes) -> tuple[str, tuple[int, int]]:
    if data.lstrip()[:1] == b"<":
        box = ElementTree.fromstring(data).attrib["viewBox"].split()
        return "image/svg+xml", (round(float(box[2])), round(float(box[3])))
    with Image.open(io.BytesIO(data)) as image:
        return _TYPES[str(image.format)], image.size
