"""Plots that are legible on light and on dark paper, as SVG files for pages or as PNG files."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# At least 3:1 against the paper of both themes (WCAG 2.1, 1.4.11), told apart by lightness, too.
SERIES = ("#2f7fd1", "#d9680c", "#2b9a66", "#c2559d", "#8a73d6", "#8c8526", "#d64550", "#1b96a8")
# Line styles change with every turn through the colors.
_DASHES = ("-", "--", ":", "-.")
# Matplotlib draws text and axes with it; in pages, the ink of the paper takes its place.
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
_LEGEND = {"handlelength": 1.4, "columnspacing": 1.2, "handletextpad": 0.5, "borderaxespad": 0.2}
# Of a figure, in CSS pixels: as wide as a phone shows without making the text smaller.
_SIZE = (360, 240)
_PNG_COLUMNS = 3


@dataclass(frozen=True)
class Plot:
    """How to draw on axes, how large in CSS pixels, and what the legend names."""

    draw: Callable[[Axes], None]
    size: tuple[int, int]
    legend: Sequence[str] = ()

    def svg(self) -> bytes:
        """The plot as an SVG file, in the ink of the page."""
        file = io.BytesIO()
        with matplotlib.rc_context(_STYLE):
            figure = _figure(self.size)
            FigureCanvasSVG(figure)
            self.draw(figure.add_subplot())
            _add_legend(figure, self.legend, "outside upper left")
            figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
        drawn = file.getvalue().replace(_INK.encode(), b"currentColor")
        start = drawn.index(b">", drawn.index(b"<svg")) + 1
        # Its size in pixels: in points, browsers make the plot a third larger.
        return drawn[:start].replace(b'pt"', b'"') + _PAPER_INK + drawn[start:]


def save_png(
    file: Path | IO[bytes], title: str, plots: Mapping[str, Plot], *, one_legend: bool = True
) -> None:
    """Draw plots, which share a legend or have one each, under their headings into a PNG file."""
    columns = min(len(plots), _PNG_COLUMNS)
    rows = -(-len(plots) // columns)
    first = next(iter(plots.values()))
    with matplotlib.rc_context(_STYLE):
        figure = _figure((first.size[0] * columns, (first.size[1] + 30) * rows + 60))
        every = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, (heading, plot) in zip(every, plots.items()):
            plot.draw(axes)
            axes.set_title(literal(heading), loc="left")
            if not one_legend and any(plot.legend):
                axes.legend(frameon=True, edgecolor="none", framealpha=0.8, **_LEGEND)
        for axes in every[len(plots) :]:
            axes.set_axis_off()
        figure.suptitle(literal(title), x=0.01, ha="left")
        if one_legend:
            _add_legend(figure, first.legend, "outside lower left")
        figure.savefig(file, format="png", dpi=200)


def _figure(size: tuple[int, int]) -> Figure:
    """An empty figure of (width, height) in CSS pixels, each 1/72 inch, Matplotlib's point."""
    return Figure(figsize=(size[0] / 72, size[1] / 72), layout="constrained")


def _add_legend(figure: Figure, names: Sequence[str], place: str) -> None:
    """A legend in as many columns as there is room for; what axes name alike is listed once."""
    if not any(names):
        return
    found: dict[str, Any] = {}
    for axes in figure.axes:
        found.update(zip(*axes.get_legend_handles_labels()[::-1]))
    room = int(72 * figure.get_figwidth() // (6.5 * max(map(len, names)) + 35))
    columns = max(1, min(room, 3 if len(found) > 4 else len(found)))
    figure.legend(found.values(), found.keys(), loc=place, ncols=columns, **_LEGEND)


@dataclass(frozen=True)
class Line:
    """One line of a plot."""

    name: str  # its entry in the legend, or "" for none
    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray  # NaN leaves a gap
    mark: int | None = None  # index of a point to be marked with a dot
    spread: Sequence[float] | None = None  # half lengths of whiskers at each point


def lines_plot(
    lines: Sequence[Line],
    x_label: str,
    y_label: str,
    *,
    size: tuple[int, int] = _SIZE,
    markers: bool = False,
    **limits: Any,
) -> Plot:
    """A plot of lines, each in a color of its own.

    Args:
        lines: what to plot.
        x_label: of the horizontal axis.
        y_label: of the vertical axis.
        size: (width, height) in CSS pixels.
        markers: whether every point gets a dot.
        limits: properties of the axes, e.g. ``ylim=(0, 1)`` or ``yscale="log"``.
    """

    def draw(axes: Axes) -> None:
        for number, line in enumerate(lines):
            _draw_line(axes, line, number, markers)
        axes.set(xlabel=literal(x_label), ylabel=literal(y_label), **limits)
        if axes.get_yscale() == "log":  # 0.1, not a power whose exponent is too small to read
            axes.yaxis.set_major_formatter("{x:g}")

    return Plot(draw, size, [line.name for line in lines])


def _draw_line(axes: Axes, line: Line, number: int, markers: bool) -> None:
    color = SERIES[number % len(SERIES)]
    dashes = _DASHES[number // len(SERIES) % len(_DASHES)]
    marker = "o" if markers else None
    label = literal(line.name) or None
    axes.plot(line.x, line.y, dashes, label=label, color=color, marker=marker, markersize=4)
    if line.spread is not None:
        axes.errorbar(line.x, line.y, line.spread, fmt="none", ecolor=color, capsize=3)
    if line.mark is not None:
        axes.plot(line.x[line.mark], line.y[line.mark], "o", color=color, markersize=7)


def stacked_plot(
    names: Sequence[str],
    shares: Mapping[str, Sequence[float]],
    x_label: str,
    *,
    size: tuple[int, int] = _SIZE,
) -> Plot:
    """A plot of horizontal bars of the same parts one after another, from top to bottom.

    ``shares`` has the length of each part in each bar; ``size`` is that of :class:`Plot`.
    """

    def draw(axes: Axes) -> None:
        start = np.zeros(len(names))
        for number, (name, lengths) in enumerate(shares.items()):
            style: dict[str, Any] = {"color": SERIES[number % len(SERIES)], "label": literal(name)}
            if number >= len(SERIES):  # the colors begin again
                style.update(hatch="//", edgecolor="white", linewidth=0)
            axes.barh(range(len(names)), lengths, left=start, **style)
            start = start + np.asarray(lengths)
        axes.set_yticks(range(len(names)), [literal(name) for name in names])
        axes.set(xlabel=literal(x_label))
        axes.invert_yaxis()
        axes.grid(False, axis="y")

    return Plot(draw, size, list(shares))


@dataclass(frozen=True)
class Bar:
    """One bar of a plot."""

    name: str  # stands above it
    length: float  # from 0
    spread: float | None = None  # half length of a whisker at its end
    dots: Sequence[float] = ()  # single values that it sums up


def bars_plot(bars: Sequence[Bar], x_label: str, *, width: int = 320, **limits: Any) -> Plot:
    """A plot of horizontal bars below each other, each under its name.

    Args:
        bars: from top to bottom; their names may be long.
        x_label: of the horizontal axis.
        width: in CSS pixels, from which the height follows.
        limits: properties of the axes, e.g. ``xlim=(0, 100)``.
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

    return Plot(draw, (width, step * len(bars) + 50))


def literal(text: str) -> str:
    """Keep Matplotlib from reading formulas into dollars, and from hiding "_names" in legends."""
    text = text.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text
