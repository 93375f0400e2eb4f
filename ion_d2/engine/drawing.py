"""Drawing boxes on an image so that small, dense ones stay legible.

Small images are enlarged. Class colors are explained in a legend underneath; a box carries a label
only where the label fits inside it and hides no other label.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .fonts import drawable_names, font_of

__all__ = ["Box", "Marks", "class_color", "draw_panel", "draw_panels"]

Box = tuple[float, float, float, float]

# Sizes in pixels of the finished picture.
_PANEL = 640  # longer side of a panel, unless told otherwise
_GAP = 8
_TITLE_FONT, _LABEL_FONT = 20, 15
_LINE = 2
BACKGROUND, _INK = (255, 255, 255), (30, 30, 30)
# Told apart by eye on photographs, light or dark; further classes take generated hues.
_COLORS = (
    (230, 25, 25), (0, 115, 255), (0, 170, 40), (255, 130, 0), (170, 0, 230), (0, 200, 220),
    (255, 90, 180), (130, 80, 20), (150, 210, 0), (20, 20, 140), (255, 225, 0), (0, 110, 90),
)  # fmt: skip


class Marks(NamedTuple):
    """Boxes to draw on one picture: x0 y0 x1 y1 in its pixels, class ids, and scores if any."""

    boxes: list[Box]
    classes: list[int]
    scores: list[float] | None = None


def class_color(class_id: int) -> tuple[int, int, int]:
    """Give the color of a class, the same in every picture.

    Args:
        class_id: 0 and up.

    Returns:
        Red, green and blue, 0 to 255.
    """
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
        class_names: names by class id; ids beyond them, and names that no font has, appear as
            numbers.
        panel_size: longer side of each panel in pixels; the image is enlarged or reduced to it.

    Returns:
        The picture, RGB.
    """
    shown = sorted({label for _, marks in panels for label in marks.classes})
    known = drawable_names(dict(enumerate(class_names)))
    names = {k: known.get(k, f"class {k}") for k in shown}
    drawn = [draw_panel(image, marks, names, panel_size) for _, marks in panels]
    width = sum(panel.width for panel in drawn) + _GAP * (len(drawn) + 1)
    title_height = _TITLE_FONT + 2 * _GAP if any(title for title, _ in panels) else _GAP
    legend = _legend(names, width)
    height = title_height + drawn[0].height + legend.height
    sheet = Image.new("RGB", (width, height), BACKGROUND)
    pen, x = ImageDraw.Draw(sheet), _GAP
    for (title, _), panel in zip(panels, drawn):
        font = _font(title, _TITLE_FONT)
        pen.text((x, title_height // 2), title, fill=_INK, font=font, anchor="lm")
        sheet.paste(panel, (x, title_height))
        x += panel.width + _GAP
    sheet.paste(legend, (0, title_height + drawn[0].height))
    return sheet


def draw_panel(
    image: np.ndarray, marks: Marks, names: Mapping[int, str], panel_size: int = _PANEL
) -> Image.Image:
    """Draw boxes on an image.

    Args:
        image: (H, W, 3) uint8, RGB.
        marks: the boxes.
        names: class names by id, for the labels; those that no font has appear as numbers.
        panel_size: longer side of the drawing in pixels; the image is enlarged or reduced to it.

    Returns:
        The drawing.
    """
    names = drawable_names(names)
    scale = panel_size / max(image.shape[:2])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    panel = Image.fromarray(np.ascontiguousarray(image)).resize(size, Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(panel)
    boxes = [_on_panel(box, scale, size) for box in marks.boxes]
    for box, label in zip(boxes, marks.classes):
        pen.rectangle(box, outline=class_color(label), width=_LINE)
    taken: list[Box] = []
    # The last box is on top, so its label comes first.
    for number in reversed(range(len(boxes))):
        name = names[marks.classes[number]]
        texts = [name]
        if marks.scores is not None:
            score = f"{marks.scores[number]:.2f}"
            texts = [f"{name} {score}", score]
        _label(pen, boxes[number], texts, class_color(marks.classes[number]), taken)
    return panel


def _on_panel(box: Box, scale: float, size: tuple[int, int]) -> Box:
    """Give the first and the last pixel of a box on the panel, at least one in each direction."""
    first = [min(max(round(box[i] * scale), 0), size[i] - 1) for i in (0, 1)]
    last = [min(max(round(box[2 + i] * scale) - 1, first[i]), size[i] - 1) for i in (0, 1)]
    return first[0], first[1], last[0], last[1]


def _label(
    pen: ImageDraw.ImageDraw,
    box: Box,
    texts: Sequence[str],
    color: tuple[int, int, int],
    taken: list[Box],
) -> None:
    """Write the first text that fits at the top or bottom of the box, clear of labels already
    there.

    A label may cover a quarter of the box's height at most.
    """
    height = _LABEL_FONT + 2
    if 4 * height > box[3] - box[1]:
        return
    for text in texts:
        font = font_of(text, _LABEL_FONT)
        width = font.getlength(text) + 6 if font else 0
        if not font or width > box[2] - box[0]:
            continue
        for top in (box[1], box[3] - height):
            place = (box[0], top, box[0] + width, top + height)
            if not any(_overlap(place, other) for other in taken):
                taken.append(place)
                pen.rectangle(place, fill=color)
                middle = (place[0] + 3, top + height / 2)
                pen.text(middle, text, _ink_on(color), font, anchor="lm")
                return


def _overlap(a: Box, b: Box) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]


def _ink_on(color: tuple[int, int, int]) -> tuple[int, int, int]:
    """Choose black or white text by the luminance of what it stands on (ITU-R BT.601)."""
    red, green, blue = color
    return (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else (255, 255, 255)


def _legend(names: dict[int, str], width: int) -> Image.Image:
    """Explain the colors in as many lines as the names need."""
    fonts = {label: _font(name, _TITLE_FONT) for label, name in names.items()}
    swatch, line_height, places, x, y = _TITLE_FONT, _TITLE_FONT + _GAP, {}, _GAP, _GAP
    for label, name in names.items():
        needed = int(swatch + _GAP + fonts[label].getlength(name) + 3 * _GAP)
        if x > _GAP and x + needed > width:
            x, y = _GAP, y + line_height
        places[label] = (x, y)
        x += needed
    height = y + line_height + _GAP if names else _GAP
    legend = Image.new("RGB", (width, height), BACKGROUND)
    pen = ImageDraw.Draw(legend)
    for label, (x, y) in places.items():
        pen.rectangle((x, y, x + swatch - 1, y + swatch - 1), fill=class_color(label))
        middle = (x + swatch + _GAP, y + swatch // 2)
        pen.text(middle, names[label], fill=_INK, font=fonts[label], anchor="lm")
    return legend


def _font(text: str, size: int) -> ImageFont.FreeTypeFont:
    """Load a font for a text, the usual one if none has all its signs."""
    font = font_of(text, size) or font_of("", size)
    assert font is not None  # Matplotlib's, for no sign at all
    return font
