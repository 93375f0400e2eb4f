"""Drawing boxes on an image so that small, dense ones stay legible.

Small images are enlarged, class colors are explained in a legend underneath, and a box carries a
label only where the label fits inside it and hides no other. Detectron2's Visualizer labels every
box, and Matplotlib, on which it draws, takes about ten times as long as Pillow.
"""

from __future__ import annotations

import colorsys
import logging
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from detectron2.utils.logger import log_first_n
from PIL import Image, ImageDraw, ImageFont

Box = Sequence[float]
Color = tuple[int, int, int]

# In pixels of the finished picture: a panel's longer side, unless told otherwise, and the rest.
_PANEL, _GAP, _LINE, _TITLE_FONT, _LABEL_FONT = 640, 8, 2, 20, 15
_PAPER, _INK = (255, 255, 255), (30, 30, 30)
# Told apart by eye on photographs, light or dark; further classes take generated hues.
_COLORS = (
    (230, 25, 25), (0, 115, 255), (0, 170, 40), (255, 130, 0), (170, 0, 230), (0, 200, 220),
    (255, 90, 180), (130, 80, 20), (150, 210, 0), (20, 20, 140), (255, 225, 0), (0, 110, 90),
)  # fmt: skip
# It comes with Matplotlib, and looks alike on every machine.
_FONT = str(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"))
# Matplotlib's fonts of placeholders and of single formula signs: what they draw is not the text.
_NO_TEXT = ("lastresort", "stixsiz", "stixnonuni", "cmex", "cmsy", "cmmi")
_load = cache(ImageFont.truetype)


class Marks(NamedTuple):
    """Boxes to draw on one picture: x0 y0 x1 y1 in its pixels, class ids, and scores if any."""

    boxes: list[Box]
    classes: list[int]
    scores: list[float] | None = None


def class_color(class_id: int) -> Color:
    """Give the color of a class, the same in every picture: red, green and blue, 0 to 255."""
    if class_id < len(_COLORS):
        return _COLORS[class_id]
    # The golden ratio spreads any number of hues evenly.
    hue = class_id * 0.61803398875 % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 1.0, (0.95, 0.6)[class_id % 2])
    return int(255 * red), int(255 * green), int(255 * blue)


def draw_panels(
    image: np.ndarray,
    panels: Sequence[tuple[str, Marks]],
    class_names: Sequence[str],
    *,
    panel_size: int = _PANEL,
) -> Image.Image:
    """Draw an image once per panel, side by side, with titles above and a legend underneath.

    Args:
        image: (H, W, 3) uint8, RGB.
        panels: title ("" for no title strip) and boxes of each panel, from left to right.
        class_names: by class id; ids beyond them, and names that no font has, appear as numbers.
        panel_size: longer side of each panel in pixels, to which the image is resized.
    """
    known = _drawable(dict(enumerate(class_names)))
    shown = sorted({label for _, marks in panels for label in marks.classes})
    names = {k: known.get(k, f"class {k}") for k in shown}
    drawn = [draw_panel(image, marks, names, panel_size) for _, marks in panels]
    width, height = drawn[0].size
    top = _TITLE_FONT + 2 * _GAP if any(title for title, _ in panels) else _GAP
    # Room for one line of the legend per name, which is more than it needs.
    room = top + height + 2 * _GAP + len(names) * (_TITLE_FONT + _GAP)
    sheet = Image.new("RGB", (len(drawn) * (width + _GAP) + _GAP, room), _PAPER)
    pen, x = ImageDraw.Draw(sheet), _GAP
    for (title, _), panel in zip(panels, drawn):
        title = _shortened(title, width)
        pen.text((x, top // 2), title, _INK, _font(title, _TITLE_FONT), anchor="lm")
        sheet.paste(panel, (x, top))
        x += width + _GAP
    bottom = _draw_legend(pen, names, top + height + _GAP, sheet.width)
    return sheet.crop((0, 0, sheet.width, bottom))


def draw_panel(
    image: np.ndarray, marks: Marks, names: Mapping[int, str], panel_size: int = _PANEL
) -> Image.Image:
    """Draw one panel of :func:`draw_panels`: boxes on an image, the last one on top."""
    names = _drawable(names)
    scale = panel_size / max(image.shape[:2])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    panel = Image.fromarray(np.ascontiguousarray(image)).resize(size, Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(panel)
    boxes = [_on_panel(box, scale, size) for box in marks.boxes]
    for box, label in zip(boxes, marks.classes):
        pen.rectangle(box, outline=class_color(label), width=_LINE)
    taken: list[Box] = []
    scores: Sequence[float | None] = marks.scores or [None] * len(boxes)
    for box, label, score in reversed(list(zip(boxes, marks.classes, scores))):
        name = names[label]
        texts = [name] if score is None else [f"{name} {score:.2f}", f"{score:.2f}"]
        _draw_label(pen, box, texts, class_color(label), taken)
    return panel


def _on_panel(box: Box, scale: float, size: tuple[int, int]) -> Box:
    """Give the first and the last pixel of a box on the panel, at least one in each direction."""
    first = [min(max(round(box[i] * scale), 0), size[i] - 1) for i in (0, 1)]
    last = [min(max(round(box[2 + i] * scale) - 1, first[i]), size[i] - 1) for i in (0, 1)]
    return first[0], first[1], last[0], last[1]


def _draw_label(
    pen: ImageDraw.ImageDraw, box: Box, texts: Sequence[str], color: Color, taken: list[Box]
) -> None:
    """Write the first text that fits at the top or bottom of the box, clear of other labels."""
    height = _LABEL_FONT + 2
    if 4 * height > box[3] - box[1]:  # it would hide too much of the box
        return
    for text in texts:
        width = _font(text, _LABEL_FONT).getlength(text) + 6
        if width > box[2] - box[0] or _font_file(text) is None:
            continue
        for top in (box[1], box[3] - height):
            place = (box[0], top, box[0] + width, top + height)
            if not any(_overlap(place, other) for other in taken):
                taken.append(place)
                pen.rectangle(place, fill=color)
                middle = (place[0] + 3, top + height / 2)
                pen.text(middle, text, _ink_on(color), _font(text, _LABEL_FONT), anchor="lm")
                return


def _overlap(a: Box, b: Box) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]


def _ink_on(color: Color) -> Color:
    """Choose black or white text by the luminance of what it stands on (ITU-R BT.601)."""
    red, green, blue = color
    return (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else _PAPER


def _draw_legend(pen: ImageDraw.ImageDraw, names: Mapping[int, str], top: int, width: int) -> int:
    """Explain the colors in as many lines as the names need; return where the legend ends."""
    if not names:
        return top
    swatch, x, y = _TITLE_FONT, _GAP, top
    for label, name in names.items():
        name = _shortened(name, width - swatch - 3 * _GAP)
        font = _font(name, _TITLE_FONT)
        needed = int(swatch + _GAP + font.getlength(name) + 3 * _GAP)
        if x > _GAP and x + needed > width:
            x, y = _GAP, y + swatch + _GAP
        pen.rectangle((x, y, x + swatch - 1, y + swatch - 1), fill=class_color(label))
        pen.text((x + swatch + _GAP, y + swatch // 2), name, _INK, font, anchor="lm")
        x += needed
    return y + swatch + 2 * _GAP


def _shortened(text: str, width: int) -> str:
    """Leave out the middle of a title that is wider: names often differ at their end."""
    short, kept = text, len(text)
    while kept > 2 and _font(short, _TITLE_FONT).getlength(short) > width:
        kept -= 1
        short = f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"
    return short


def _drawable(names: Mapping[int, str]) -> dict[int, str]:
    """Put each name into one line; a class whose name no font has is shown by its number."""
    lines = {k: " ".join(str(name).split()) for k, name in names.items()}
    missing = {k: line for k, line in lines.items() if _font_file(line) is None}
    if missing:
        told = (
            "No font on this machine has the signs of these class names, so pictures show the "
            f"classes by number; install a font of their script: {', '.join(missing.values())}"
        )
        log_first_n(logging.WARNING, told, key="message")
    return {**lines, **{k: f"class {k}" for k in missing}}


def _font(text: str, size: int) -> ImageFont.FreeTypeFont:
    """Load a font for a text, the usual one if none has all its signs."""
    return _load(_font_file(text) or _FONT, size)


@cache
def _font_file(text: str) -> str | None:
    """Find a font that has all signs of a text; None if there is none."""
    # Signs without a picture of their own, such as joiners and variation selectors, need no glyph.
    needed = frozenset(
        ord(sign)
        for sign in text
        if unicodedata.category(sign) != "Cf" and not 0xFE00 <= ord(sign) <= 0xFE0F
    )
    if needed <= _signs(_FONT):
        return _FONT
    return next((file for file in _other_fonts() if needed <= _signs(file)), None)


@cache
def _other_fonts() -> list[str]:
    """List the machine's fonts, upright ones of usual weight first."""
    from matplotlib.font_manager import fontManager  # slow, and most names do without

    fonts = {
        (font.style != "normal", font.weight not in (400, "normal"), font.fname)
        for font in fontManager.ttflist
    }
    files = [file for *_, file in sorted(fonts)]
    return [file for file in files if not Path(file).name.lower().startswith(_NO_TEXT)]


@cache
def _signs(file: str) -> frozenset[int]:
    """List the signs of a font, none if it cannot be used."""
    from matplotlib.ft2font import FT2Font

    try:
        _load(file, _TITLE_FONT)  # fails for bitmap fonts, such as those of emoji
        return frozenset(FT2Font(file).get_charmap())
    except (OSError, RuntimeError, ValueError):
        return frozenset()
