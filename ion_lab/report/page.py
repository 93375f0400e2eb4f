"""Sections rendered as one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import html
import io
import itertools
import os
from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from ion_d2.errors import IONError
from ion_d2.files import replace_file

from .document import Picture, Section
from .svg import inline_svg

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
    path = os.fspath(path)
    page = render_report(title, sections, lead=lead)
    try:
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        replace_file(path, lambda file: file.write(page.encode()))
    except OSError as error:
        raise IONError(
            f"The report {path} cannot be written ({error.strerror}); make room or choose another "
            "place."
        ) from error


def render_report(title: str, sections: Sequence[Section], *, lead: str = "") -> str:
    """Render a report.

    Args:
        title: see :func:`write_report`, like the others.
        sections: its sections.
        lead: a sentence below the title.

    Returns:
        The HTML page.

    Raises:
        ValueError: see :func:`write_report`.
    """
    environment = Environment(
        loader=PackageLoader("ion_lab.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    numbers = itertools.count(1)
    environment.filters["kind"] = lambda part: type(part).__name__
    environment.filters["embed"] = lambda picture: embed(picture, f"picture-{next(numbers)}")
    page = environment.get_template("page.html")
    return page.render(title=title, lead=lead, sections=sections)


def embed(picture: Picture, prefix: str) -> str:
    """Make a picture an element of a page.

    Args:
        picture: the picture.
        prefix: for the ids in it; no other picture of the page has it.

    Returns:
        An ``<svg>``, or an ``<img>`` with its data.

    Raises:
        ValueError: the data is of another kind, or there is no description.
    """
    if not picture.alt.strip():
        raise ValueError(f"picture {picture.label!r} needs a description (alt)")
    if picture.data.lstrip()[:1] == b"<":
        return inline_svg(picture.data, picture.alt, prefix)
    try:
        with Image.open(io.BytesIO(picture.data)) as image:
            kind, (width, height) = _TYPES[image.format], image.size
    except (OSError, KeyError) as error:
        raise ValueError(f"picture {picture.label!r} is neither PNG nor JPEG nor SVG") from error
    source = f"data:{kind};base64,{base64.b64encode(picture.data).decode()}"
    alt = html.escape(picture.alt)
    return f'<img src="{source}" alt="{alt}" width="{width}" height="{height}">'
