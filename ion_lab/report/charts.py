"""Plots that are legible on light and on dark paper, as SVG files."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# At least 3:1 against the paper of both themes (WCAG 2.1, 1.4.11), told apart by lightness, too.
SERIES = ("#2f7fd1", "#d9680c", "#2b9a66", "#c2559d", "#8a73d6", "#8c8526", "#d64550", "#1b96a8")
# Line styles change with every turn through the colors.
_DASHES = ("-", "--", ":", "-.")
# Matplotlib draws text and axes with it; the ink of the paper takes its place.
_INK = "#010203"
_PAPER_INK = b"""<style>svg { color: #1b1f24; stroke-linejoin: round }
@media (prefers-color-scheme: dark) { svg { color: #e6e9ed } }</style>"""
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ion_d2",
    "font.size": 12.0,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "grid.color": _INK,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "legend.fontsize": 11.0,
    "axes.formatter.useoffset": False,
    "axes.unicode_minus": False,
}
# Of a figure, in CSS pixels: as wide as a phone shows without making the text smaller.
_SIZE = (360, 240)


@dataclass(frozen=True)
class Line:
    """One line of a plot.

    Attributes:
        name: its entry in the legend, or "" for none.
        x: positions.
        y: heights; NaN leaves a gap.
        mark: index of a point to be marked with a dot, if any.
        spread: half lengths of whiskers at each point, if any.
    """

    name: str
    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray
    mark: int | None = None
    spread: Sequence[float] | None = None


def line_plot(
    lines: Sequence[Line],
    x_label: str,
    y_label: str,
    *,
    size: tuple[int, int] = _SIZE,
    markers: bool = False,
    **limits: Any,
) -> bytes:
    """Plot lines.

    Args:
        lines: what to plot, each in a color of its own.
        x_label: of the horizontal axis.
        y_label: of the vertical axis.
        size: (width, height) in CSS pixels.
        markers: whether every point gets a dot, for lines of few points.
        limits: properties of the axes, e.g. ``ylim=(0, 1)`` or ``yscale="log"``.

    Returns:
        An SVG file.
    """

    def draw(axes: Axes) -> None:
        for number, line in enumerate(lines):
            _draw_line(axes, line, number, markers)
        axes.set(xlabel=literal(x_label), ylabel=literal(y_label), **limits)
        if axes.get_yscale() == "log":  # 0.1, not a power whose exponent is too small to read
            axes.yaxis.set_major_formatter("{x:g}")

    return _draw(draw, size, [line.name for line in lines])


def _draw_line(axes: Axes, line: Line, number: int, markers: bool) -> None:
    style = {
        "color": SERIES[number % len(SERIES)],
        "linestyle": _DASHES[number // len(SERIES) % len(_DASHES)],
        "marker": "o" if markers else None,
        "markersize": 4,
    }
    axes.plot(line.x, line.y, label=literal(line.name) or None, **style)
    if line.spread is not None:
        axes.errorbar(line.x, line.y, line.spread, fmt="none", ecolor=style["color"], capsize=3)
    if line.mark is not None:
        axes.plot(line.x[line.mark], line.y[line.mark], "o", color=style["color"], markersize=7)


def stacked_bars(
    names: Sequence[str],
    shares: Mapping[str, Sequence[float]],
    x_label: str,
    *,
    size: tuple[int, int] = _SIZE,
) -> bytes:
    """Plot horizontal bars, each of the same parts one after another.

    Args:
        names: of the bars, from top to bottom.
        shares: name of a part -> its length in each bar.
        x_label: of the horizontal axis.
        size: (width, height) in CSS pixels.

    Returns:
        An SVG file.
    """

    def draw(axes: Axes) -> None:
        start = np.zeros(len(names))
        for number, (name, lengths) in enumerate(shares.items()):
            color = SERIES[number % len(SERIES)]
            axes.barh(range(len(names)), lengths, left=start, color=color, label=literal(name))
            start = start + np.asarray(lengths)
        axes.set_yticks(range(len(names)), [literal(name) for name in names])
        axes.set(xlabel=literal(x_label))
        axes.invert_yaxis()
        axes.grid(False, axis="y")

    return _draw(draw, size, list(shares))


@dataclass(frozen=True)
class Bar:
    """One bar of a plot.

    Attributes:
        name: what stands above it.
        length: its length, from 0.
        spread: half length of a whisker at its end, if any.
        dots: single values that it sums up.
    """

    name: str
    length: float
    spread: float | None = None
    dots: Sequence[float] = ()


def bar_plot(bars: Sequence[Bar], x_label: str, *, width: int = 320, **limits: Any) -> bytes:
    """Plot horizontal bars below each other, each under its name, so that names may be long.

    Args:
        bars: from top to bottom.
        x_label: of the horizontal axis.
        width: in CSS pixels; the height follows from the number of bars.
        limits: properties of the axes, e.g. ``xlim=(0, 100)``.

    Returns:
        An SVG file.
    """

    names = [textwrap.fill(bar.name, width // 7) for bar in bars]
    text = 16 * max(name.count("\n") + 1 for name in names)
    step = text + 30  # from bar to bar, in CSS pixels like all of these

    def draw(axes: Axes) -> None:
        for place, (bar, name) in enumerate(zip(bars, names)):
            axes.barh(place, bar.length, 18 / step, color=SERIES[0])
            axes.errorbar(bar.length, place, xerr=bar.spread, ecolor=_INK, capsize=3)
            axes.plot(bar.dots, [place] * len(bar.dots), "o", color=_INK, markersize=3)
            axes.text(0, place - 13 / step, literal(name), va="bottom")
        ends = (len(bars) - 1 + 18 / step, -(text + 23) / step)
        axes.set(xlabel=literal(x_label), yticks=[], ylim=ends, **limits)

    return _draw(draw, (width, step * len(bars) + 50), [])


def percent_end(values: Sequence[float]) -> float:
    """Where an axis of percents ends.

    Args:
        values: what it is to show.

    Returns:
        100, or less where all is low.
    """
    highest = max(values, default=100.0)
    return 100.0 if highest > 50 else max(1.0, 1.15 * highest)


def literal(text: str) -> str:
    """Keep Matplotlib from reading dollar signs as the start of a formula.

    Args:
        text: any text.

    Returns:
        What Matplotlib shows as that text.
    """
    return text.replace("$", r"\$")


def _draw(draw: Any, size: tuple[int, int], names: Sequence[str]) -> bytes:
    """Draw on new axes, with a legend above them, and save as SVG."""
    with matplotlib.rc_context(_STYLE):
        # 72 points to the inch: a point of the drawing is a pixel of the page.
        figure = Figure(figsize=(size[0] / 72, size[1] / 72), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        draw(axes)
        if any(names):
            columns = 3 if len(names) > 4 else max(1, len(names))
            figure.legend(loc="outside upper left", ncols=columns, handlelength=1.4,
                          columnspacing=1.2, handletextpad=0.5, borderaxespad=0.2)  # fmt: skip
        file = io.BytesIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    drawn = file.getvalue().replace(_INK.encode(), b"currentColor")
    start = drawn.index(b">", drawn.index(b"<svg")) + 1
    return drawn[:start] + _PAPER_INK + drawn[start:]
