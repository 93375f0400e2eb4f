"""Heat maps: colors by amount, on the scale asked for, with frames where they belong."""

from __future__ import annotations

import io

import matplotlib
import numpy as np
import pytest
from PIL import Image

from ion_lab.report.heatmap import heat_map


def pixels(*args, **kwargs):
    return np.asarray(Image.open(io.BytesIO(heat_map(*args, **kwargs)))).astype(int)


def shade(share):
    return (np.array(matplotlib.colormaps["magma"](share, bytes=True))[:3]).tolist()


def test_colors_follow_the_values():
    drawn = pixels(np.array([[0.0, 1.0], [2.0, 4.0]]))
    assert drawn[1, 1].tolist() == shade(1.0) and drawn[0, 0].tolist() == shade(0.0)
    assert drawn[0, 1].tolist() == shade(0.25) and drawn[1, 0].tolist() == shade(0.5)
    assert pixels(np.array([[2.0]]), top=8.0)[0, 0].tolist() == shade(0.25)


def test_decades_are_even_steps():
    drawn = pixels(np.array([[1.0, 0.1, 0.01, 0.001, 1e-9, 0.0]]), decades=3)[0]
    assert [p.tolist() for p in drawn[:4]] == [shade(s) for s in (1.0, 2 / 3, 1 / 3, 0.0)]
    assert (drawn[4:] == shade(0.0)).all()


def test_nothing_is_black():
    assert (pixels(np.zeros((2, 3))) == shade(0.0)).all()
    assert (pixels(np.zeros((2, 3)), decades=3) == shade(0.0)).all()


@pytest.mark.parametrize("zoom", [1, 3])
def test_frames_are_inside_what_they_bound(zoom):
    values, outline = np.zeros((30, 40)), np.zeros((30, 40), dtype=bool)
    outline[5:25, 10:40] = True  # up to the right border
    drawn = pixels(values, zoom=zoom, outline=outline, spot=(18, 12, 24, 20))
    assert drawn.shape == (30 * zoom, 40 * zoom, 3)
    blue, green = (drawn == (90, 230, 255)).all(2), (drawn == (120, 255, 120)).all(2)
    for frame, (y0, y1, x0, x1) in ((blue, (5, 25, 10, 40)), (green, (12, 20, 18, 24))):
        expected = np.zeros_like(frame)
        expected[y0 * zoom : y1 * zoom, x0 * zoom : x1 * zoom] = True
        expected[y0 * zoom + 2 : y1 * zoom - 2, x0 * zoom + 2 : x1 * zoom - 2] = False
        np.testing.assert_array_equal(frame, expected)
