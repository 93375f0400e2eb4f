"""Fonts that have the signs of a text, in any script that the machine has a font of."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
from PIL import ImageFont

__all__ = ["drawable_names", "font_of"]

logger = logging.getLogger(__name__)

# Matplotlib's fonts of placeholders and of single formula signs: what they draw is not the text.
_NO_TEXT = ("lastresort", "stixsiz", "stixnonuni", "cmex", "cmsy", "cmmi")
_told: set[str] = set()


def drawable_names(names: Mapping[int, str]) -> dict[int, str]:
    """Replace the class names that no font has by the classes' numbers.

    One warning tells those that were not told before.

    Args:
        names: class names by id.

    Returns:
        Names that can be drawn, in one line each.
    """
    lines = {k: _one_line(str(name)) for k, name in names.items()}
    missing = [k for k, name in lines.items() if _file_of(name) is None]
    new = [names[k] for k in missing if names[k] not in _told]
    if new:
        _told.update(new)
        logger.warning(
            "No font on this machine has the signs of these class names, so pictures show the "
            "classes by number; install a font of their script: %s",
            ", ".join(map(_one_line, new)),
        )
    return {**lines, **{k: f"class {k}" for k in missing}}


def font_of(text: str, size: int) -> ImageFont.FreeTypeFont | None:
    """Load a font that has all signs of a text.

    Args:
        text: one line.
        size: in pixels.

    Returns:
        The font that comes with Matplotlib, which looks alike on every machine, wherever it can;
        else another one of the machine's; None if there is none.
    """
    file = _file_of(text)
    return None if file is None else _load(file, size)


def _one_line(text: str) -> str:
    return "".join(
        " " if unicodedata.category(sign) in ("Cc", "Zl", "Zp") else sign for sign in text
    )


@cache
def _file_of(text: str) -> str | None:
    """Find the font file for a text."""
    if text.isascii():
        return _default()
    # Signs without a picture of their own, such as joiners and variation selectors, need no glyph.
    needed = frozenset(
        ord(sign)
        for sign in text
        if unicodedata.category(sign) != "Cf" and not 0xFE00 <= ord(sign) <= 0xFE0F
    )
    if needed <= _signs(_default()):
        return _default()
    return next((file for file in _others() if needed <= _signs(file)), None)


def _default() -> str:
    return str(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"))


@cache
def _others() -> tuple[str, ...]:
    """List the machine's fonts, upright ones of usual weight first."""
    from matplotlib.font_manager import fontManager  # slow, and most names do without

    def rank(font: Any) -> tuple[bool, int, str]:
        weight = font.weight if isinstance(font.weight, int) else 400
        return font.style != "normal", abs(weight - 400), font.fname

    files = [font.fname for font in sorted(fontManager.ttflist, key=rank)]
    return tuple(f for f in dict.fromkeys(files) if not Path(f).name.lower().startswith(_NO_TEXT))


@cache
def _signs(file: str) -> frozenset[int]:
    """List the signs of a font, none if it cannot be used at the sizes of drawings."""
    from matplotlib.ft2font import FT2Font

    try:
        ImageFont.truetype(file, 20)  # fails for bitmap fonts, such as those of emoji
        return frozenset(FT2Font(file).get_charmap())
    except (OSError, RuntimeError, ValueError):
        return frozenset()


@cache
def _load(file: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(file, size)
