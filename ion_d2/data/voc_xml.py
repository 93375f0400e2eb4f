"""One Pascal VOC annotation file (XML) -> plain Python values.

Boxes in the files are 1-based with inclusive right and bottom; here they are 0-based with exclusive
right and bottom, in pixels: ``(xmin - 1, ymin - 1, xmax, ymax)``.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree
from defusedxml.common import DefusedXmlException

from ..errors import IONError
from .class_file import clean_class_name
from .reading_on import read_each

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
# Labeling tools write these flags as digits or words, or leave the element empty.
_FLAGS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1, "unspecified": 0, "": 0}


@dataclass(frozen=True)
class VOCObject:
    """One labeled object.

    Attributes:
        name: class name, in its one spelling (:func:`~ion_d2.data.class_file.clean_class_name`).
        bbox: x0, y0, x1, y1 in pixels, 0-based, right and bottom exclusive.
        difficult: 1 if marked as hard to recognize, else 0.
    """

    name: str
    bbox: tuple[float, float, float, float]
    difficult: int


@dataclass(frozen=True)
class Annotation:
    """What one annotation file says about one image.

    Attributes:
        width: image width in pixels, or None if the file does not give a positive one.
        height: image height likewise.
        objects: the objects in the order of the file.
        folder: the folder that the file names, such as "VOC2007"; "" if none.
    """

    width: int | None
    height: int | None
    objects: list[VOCObject]
    folder: str = ""


def parse_annotation(path: str | os.PathLike) -> Annotation:
    """Read one annotation file; boxes are neither clipped nor checked for extent.

    ``difficult`` and ``size`` may be missing, and coordinates may be fractions.

    Raises:
        IONError: the file is no VOC XML, declares entities, or an object lacks its name or box.
    """
    root = _parse_xml(path)
    if root.tag != "annotation":
        raise IONError(f"{path} begins with <{root.tag}> instead of <annotation>; replace it.")
    return Annotation(
        width=_size(root, "width", path),
        height=_size(root, "height", path),
        objects=read_each(root.iterfind("object"), lambda element: _object(element, path)),
        folder=root.findtext("folder") or "",
    )


def _parse_xml(path: str | os.PathLike) -> Element:
    try:
        with open(path, "rb") as file:
            return defusedxml.ElementTree.fromstring(file.read())
    except OSError as error:
        text = f"{path} cannot be read ({error.strerror})"
        raise IONError(f"{text}; restore it, or take its image out of the split.") from error
    except DefusedXmlException as error:
        text = f"{path} declares XML entities, which can exhaust the memory"
        raise IONError(f"{text}; remove its <!DOCTYPE ...> part.") from error
    except (ParseError, ValueError, LookupError) as error:
        raise IONError(
            f"{path} is not well-formed XML ({error}); repair it, or save it as UTF-8."
        ) from error


def _object(element: Element, path: str | os.PathLike) -> VOCObject:
    # Only direct children count: VOC2012 nests <part> elements with names and boxes of their own.
    name = clean_class_name(element.findtext("name") or "")
    if not name:
        raise IONError(f"{path} has an <object> without a <name>; name its class or remove it.")
    box = element.find("bndbox")
    if box is None:
        raise IONError(f"{path}: object '{name}' has no <bndbox>; add one or remove the object.")
    xmin, ymin, xmax, ymax = (_number(box, corner, path) for corner in _CORNERS)
    text = element.findtext("difficult") or ""
    difficult = _FLAGS.get(text.strip().lower())
    if difficult is None:
        raise IONError(f"{path}: <difficult> is {text!r}, but must be 0 or 1; correct it.")
    return VOCObject(name, (xmin - 1.0, ymin - 1.0, xmax, ymax), difficult)


def _number(element: Element, tag: str, path: str | os.PathLike) -> float:
    text = element.findtext(tag)
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise IONError(f"{path}: <{tag}> is {text!r}, but must be a number of pixels; correct it.")
    return value


def _size(root: Element, tag: str, path: str | os.PathLike) -> int | None:
    size = root.find("size")
    if size is None or not (size.findtext(tag) or "").strip():
        return None
    value = int(_number(size, tag, path))
    return value if value > 0 else None
