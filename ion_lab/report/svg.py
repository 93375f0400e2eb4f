"""SVG files made part of an HTML page."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from defusedxml import ElementTree as SafeElementTree

_SVG = "{http://www.w3.org/2000/svg}"
# Of no use in a page; a style sheet would apply to all of it.
_DROPPED = {_SVG + "metadata", _SVG + "style"}
# These have no place in a file that people pass on.
_REFUSED = {_SVG + name for name in ("script", "foreignObject", "set", "handler")}
_ANIMATION = _SVG + "animate"  # the beginning of the names of all that change attributes
_REFERENCE = re.compile(r"url\(\s*['\"]?([^)'\"\s]*)['\"]?\s*\)")


def inline_svg(data: bytes, alt: str, prefix: str) -> str:
    """Turn an SVG file into an element for a page.

    Its ids get a prefix, since those of several figures on a page must differ. Metadata and style
    sheets are left out. It takes the width that the page has for it, up to its own.

    Args:
        data: the file.
        alt: what the figure shows.
        prefix: of the ids; letters, digits and "-".

    Returns:
        The ``<svg>`` element.

    Raises:
        ValueError: it is not an SVG file with a viewBox, or holds a script or a reference to
            something outside.
    """
    root = SafeElementTree.fromstring(data)
    if root.tag != _SVG + "svg" or "viewBox" not in root.attrib:
        raise ValueError(f"an SVG file with a viewBox is expected, not one of {root.tag}")
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag in _DROPPED]:
            parent.remove(child)
    for element in root.iter():
        _check(element)
        _prefix_ids(element, prefix)
    _present(root, alt)
    ElementTree.register_namespace("", _SVG[1:-1])
    ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    return ElementTree.tostring(root, encoding="unicode")


def _present(root: ElementTree.Element, alt: str) -> None:
    """Give the figure its description and its size."""
    width = float(root.attrib["viewBox"].split()[2])
    for name in ("width", "height"):
        root.attrib.pop(name, None)
    root.set("role", "img")
    root.set("aria-label", alt)
    root.set("style", f"max-width: {width:g}px; stroke-linejoin: round")


def _check(element: ElementTree.Element) -> None:
    if element.tag in _REFUSED or element.tag.startswith(_ANIMATION):
        raise ValueError(f"an SVG figure in a report must not hold {element.tag[len(_SVG) :]}")
    for name, value in element.attrib.items():
        local = name.rpartition("}")[2]
        references = _REFERENCE.findall(value) + ([value] if local == "href" else [])
        outside = [text for text in references if not text.startswith(("#", "data:image/"))]
        # In a style, an escape such as "u\\72l" stands for "url", and "@import" needs no brackets.
        hidden = local == "style" and ("\\" in value or "@" in value)
        if outside or hidden or local.startswith("on"):
            raise ValueError(f"an SVG figure in a report must not hold {local}={value!r}")


def _prefix_ids(element: ElementTree.Element, prefix: str) -> None:
    for name, value in list(element.attrib.items()):
        if name == "id":
            element.set(name, f"{prefix}-{value}")
        elif name.rpartition("}")[2] == "href" and value.startswith("#"):
            element.set(name, f"#{prefix}-{value[1:]}")
        elif "url(" in value:
            element.set(name, _REFERENCE.sub(lambda m: f"url(#{prefix}-{m[1][1:]})", value))
