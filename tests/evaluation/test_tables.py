"""Result tables, cell by cell."""

from __future__ import annotations

import numpy as np
import pytest

from ion_d2.evaluation.tables import (
    class_cells,
    format_percent,
    metrics_table,
    text_table,
    voc_cells,
)


def cells(table):
    lines = [line.strip("|").split("|") for line in table.splitlines()]
    assert set("".join(lines[1])) <= set("-:")
    return [[cell.strip() for cell in line] for line in lines[:1] + lines[2:]]


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0.0"), (66.66, "66.7"), (np.float64("nan"), "-"), (None, "-")]
)
def test_format_percent(value, text):
    assert format_percent(value) == text


def figures(*values):
    """Of a class or of the mean: AP50 at 11 points; AP50, AP75 and AP by the area."""
    first, *others = values
    names = ("AP50", "AP75", "AP")
    return {"11point": {"AP50": first, "AP75": 1, "AP": 2}, "area": dict(zip(names, others))}


def test_voc_table():
    entries = {
        "cat": (7, 12, (90.0, 95.0, 55.0, 75.0)),
        "1e3": (1, 1, (70.0, 75.0, 15.0, 45.0)),
        "absent": (0, 0, (np.nan, np.nan, None, None)),
    }
    results = {
        "metric": "area",
        "mean": figures(80.0, 85.0, 35.0, 60.0),
        "classes": {
            name: {"num_images": images, "num_boxes": boxes, **figures(*values)}
            for name, (images, boxes, values) in entries.items()
        },
    }
    assert cells(text_table(voc_cells(results))) == [
        ["class", "images", "boxes", "AP50 11-point", "AP50 area", "AP75 area", "AP area"],
        ["cat", "7", "12", "90.0", "95.0", "55.0", "75.0"],
        ["1e3", "1", "1", "70.0", "75.0", "15.0", "45.0"],
        ["absent", "0", "0", "-", "-", "-", "-"],
        ["mean", "", "13", "80.0", "85.0", "35.0", "60.0"],
    ]
    other = voc_cells({**results, "metric": "11point"})
    assert other.headers[-2:] == ["AP75 11-point", "AP 11-point"]
    assert other.footer[-2:] == ["1.0", "2.0"]


def test_other_tables():
    values = {"AP": 12.34, "APs": float("nan"), "APl": 100.0}
    assert cells(metrics_table(values)) == [["AP", "APs", "APl"], ["12.3", "-", "100.0"]]
    table = cells(text_table(class_cells({"background": 90.04, "cat": None}, "IoU", 90.04)))
    assert table == [["class", "IoU"], ["background", "90.0"], ["cat", "-"], ["mean", "90.0"]]
